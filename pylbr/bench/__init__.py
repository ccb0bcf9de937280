"""The published benchmark suite: every row beside an alternative, measured in the same run."""
