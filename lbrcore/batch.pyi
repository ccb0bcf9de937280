"""Many branches at once; `LbrState.record` is the public form."""
