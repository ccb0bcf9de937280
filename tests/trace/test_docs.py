"""The examples of the documentation run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pylbr.trace import formats

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["trace-format.md", "formats.md"])
def test_examples(tmp_path, monkeypatch, name):
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    if name == "trace-format.md":
        assert names["returns"] == 1 and len(names["window"]) == 2
        assert len(names["frame"]) == names["table"].height == 3


def test_entry_points_name_the_built_in_formats():
    declared = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    points = declared["entry-points"][formats.ENTRY_POINT_GROUP]
    assert set(points.values()) == set(formats.BUILTIN)
    assert set(points) <= {entry.name for entry in formats.formats()}
