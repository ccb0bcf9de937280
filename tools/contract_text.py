"""The contract as plain text, wrapped at 75 columns: docs/contract.md and its pages -> a text file.

``python tools/contract_text.py docs/contract.txt``; `make docs` does the same.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

WIDTH = 75
DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("contract.md", "contract-source.md", "contract-changes.md", "contract-sequences.md")
_UNDERLINES = "=-~^"


def _plain(text: str) -> str:
    """Without the marks of Markdown."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"\1", text)
    text = re.sub(r"(?<![\w*])\*([^*]+)\*(?![\w*])", r"\1", text)
    return text.removesuffix("\\").replace("`", "").replace("<br>", "; ")


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(_plain(text), WIDTH, initial_indent=first, subsequent_indent=rest,
                         break_long_words=True, break_on_hyphens=False)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _table(lines: list[str]) -> list[str]:
    """As a table if it fits, else row by row."""
    rows = [[_plain(cell) for cell in _cells(line)] for line in lines
            if not set(line) <= set("|- ")]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if sum(widths) + 2 * len(widths) <= WIDTH:
        return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                for row in rows]
    out = []
    for row in rows[1:]:
        if not any(row[1:]):
            out += ["", row[0]]
            continue
        out += _wrapped(row[0], "- ", "  ")
        for name, cell in zip(rows[0][1:], row[1:], strict=True):
            if cell:
                out += _wrapped(f"{name}: {cell}", "    ", "      ")
    return out


def _diagram(lines: list[str]) -> list[str]:
    """A state diagram: its arrows as sentences."""
    out = []
    for line in lines:
        found = re.match(r"\s*(\S+) --> (\S+?)(?:: (.*))?$", line)
        if found and found[1] != "[*]":
            out += _wrapped(f"{found[1]} -> {found[2]}: {found[3]}".replace("_", " "), "    ",
                            "      ")
    return out


def _indented(lines: list[str]) -> list[str]:
    """Text that is set as it stands, as far to the right as fits."""
    margin = " " * max(0, min(4, WIDTH - max(map(len, lines), default=0)))
    return [(margin + line).rstrip() for line in lines]


def _block(lines: list[str]) -> list[str]:
    """One paragraph, list, table or piece of code."""
    first = lines[0]
    if found := re.match(r"(#+) (.*)", first):
        title = _plain(found[2])
        rest = _block(lines[1:]) if lines[1:] else []
        return [title, _UNDERLINES[len(found[1]) - 1] * min(len(title), WIDTH), *rest]
    if first.startswith("|"):
        return _table(lines)
    if first.startswith("    "):
        return [part for line in lines for part in (
            [line] if len(line) <= WIDTH else textwrap.wrap(
                line, WIDTH, subsequent_indent=" " * (len(line) - len(line.lstrip()) + 4),
                drop_whitespace=True, break_on_hyphens=False))]
    if re.match(r"(- |\d+\. )", first):
        items: list[str] = []
        for line in lines:
            if re.match(r"(- |\d+\. )", line) or not items:
                items.append(line)
            else:
                items[-1] += " " + line.strip()
        return [part for item in items for part in _wrapped(item, "", "  ")]
    where = next((i for i, line in enumerate(lines) if line.startswith("Proved by: ")), None)
    out = _wrapped(" ".join(lines[:where]))
    if where is not None:
        out += ["  Proved by:", *(f"    {name}" if len(name) <= WIDTH - 4 else
                                  "    " + name.replace("::", "::\n      ")
                                  for name in " ".join(lines[where:])[11:].split(", "))]
    return [line for text in out for line in text.split("\n")]


def text_of(page: str) -> str:
    """The text of a page."""
    out: list[str] = []
    fenced = ""
    block: list[str] = []

    def end() -> None:
        if block:
            out.extend([*_block(list(block)), ""])
            block.clear()

    for line in page.split("\n"):
        if line.startswith("```"):
            if fenced:
                out.extend([*(_diagram(block) if "mermaid" in fenced else _indented(block)), ""])
                block.clear()
            else:
                end()
            fenced = "" if fenced else line
        elif fenced:
            block.append(line)
        elif not line.strip() or line.startswith("<!--"):
            end()
        else:
            block.append(line)
    end()
    return "\n".join(out).rstrip() + "\n"


def text() -> str:
    """All pages, one after the other."""
    return "\n\n".join(text_of((DOCS / name).read_text()) for name in PAGES)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
