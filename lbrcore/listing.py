"""The entries of a facility as text, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["as_html", "as_text"]

#: Headings, and which of them are of numbers.
_HEAD = (("#", True), ("from", True), ("to", True), ("class", False), ("cycles", True),
         ("flags", False))  # fmt: skip
Rows = Sequence[tuple[str, ...]]


def _used(rows: Rows) -> list[int]:
    """Columns that are not empty."""
    return [i for i in range(len(_HEAD)) if any(row[i] for row in rows)]


def as_text(head: str, rows: Rows) -> str:
    """A line, and a table of the rows; columns without any text are left out."""
    lines = [tuple(name for name, _ in _HEAD), *rows] if rows else []
    used = [(i, max(len(line[i]) for line in lines)) for i in _used(rows)]
    return "\n".join([head, *(
        "  ".join(line[i].rjust(width) if _HEAD[i][1] else line[i].ljust(width)
                  for i, width in used).rstrip() for line in lines)])


def as_html(head: str, rows: Rows) -> str:
    """The same as HTML."""
    used = _used(rows)

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(
            f'<{tag} style="text-align: {"right" if _HEAD[i][1] else "left"}">'
            f"{escape(cells[i])}</{tag}>" for i in used) + "</tr>\n"

    if not rows:
        return f"<p>{escape(head)}</p>"
    body = "".join(line(row, "td") for row in rows)
    titles = line([name for name, _ in _HEAD], "th")
    return (f"<div><p>{escape(head)}</p>\n<table>\n<thead>\n{titles}</thead>\n"
            f"<tbody>\n{body}</tbody>\n</table></div>")
