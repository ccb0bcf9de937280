"""What consumers of branch stacks eat: perf.data, perf script, BOLT, AutoFDO, tables."""
