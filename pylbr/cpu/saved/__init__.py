"""A saved processor: its plain data, its bytes, and its move to another model."""
