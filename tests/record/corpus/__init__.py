"""Real programs with and without the native recorder: `python -m tests.record.corpus`."""
