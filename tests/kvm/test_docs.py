"""docs/selftests.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "selftests.md").read_text()


def test_every_test_that_is_named_exists():
    named = re.findall(r"(tests/\S+\.py)::(\w+)", TEXT)
    assert len(named) > 25
    for path, function in named:
        assert f"\ndef {function}(" in (ROOT / path).read_text(), f"{path} has no {function}"


def test_every_row_names_one():
    for line in TEXT.splitlines():
        if line.startswith("|") and not re.match(r"\| what \||\|-", line):
            assert "::" in line, line
