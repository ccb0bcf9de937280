"""Counts of branch stacks, and the files that BOLT and AutoFDO read."""
