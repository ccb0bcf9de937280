"""docs/notebook.ipynb: it runs, and shows what it showed when it was stored."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[2] / "docs"


def outputs(notebook):
    """Of each cell, its text without addresses of objects, and the pictures by size."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                found.append("a picture" if len(data["image/png"]) > 10_000 else "too small")
            else:
                found.append(re.sub(r"0x[0-9a-f]{9,}>", ">", data.get("text/plain", "")))
    return found


@pytest.mark.slow
# The kernel's own warnings are about its ports.
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs_and_shows_what_it_stores(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    stored = nbformat.read(DOCS / "notebook.ipynb", 4)
    shown = outputs(stored)
    assert shown.count("a picture") == 2 and "near_taken" in "".join(shown)
    again = nbformat.read(DOCS / "notebook.ipynb", 4)
    for cell in again.cells:
        cell.pop("outputs", None) if cell.cell_type == "code" else None
    NotebookClient(again, timeout=300, kernel_name="python3",
                   resources={"metadata": {"path": str(DOCS)}}).execute()
    assert outputs(again) == shown
