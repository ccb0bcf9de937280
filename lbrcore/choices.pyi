"""What the manual leaves open, and what was chosen."""

#: Name -> (value, reason).
CHOICES: dict[str, tuple[int, str]]
__test__: dict[str, object]
