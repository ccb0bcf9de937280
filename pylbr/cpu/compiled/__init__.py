"""The logical processor compiled, for liblbrcore: no Python object, tables instead of rows."""
