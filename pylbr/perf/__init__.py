"""perf's formats: perf.data and perf script, and the branch stacks that they carry."""
