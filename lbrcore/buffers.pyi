"""Arguments from Python: buffers and integers, checked once.  Nothing of it is public."""
