"""Call-stack mode: which calls of a stretch of rows are still open, by blocks of heights."""
