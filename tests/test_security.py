"""The page about threats names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text())


def test_the_page_names_tests():
    assert len(NAMED) > 25


@pytest.mark.parametrize(("path", "name"), NAMED, ids="::".join)
def test_a_named_test_exists(path, name):
    assert re.search(rf"^\s*def {name}\(", (ROOT / path).read_text(), re.M)
