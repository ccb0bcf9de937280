"""The page of ``pylbr report --html``: a profile to look at, in one file."""
