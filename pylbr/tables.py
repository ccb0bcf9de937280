"""Tables: fitted to the width of a terminal, and plain stable text everywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from typing import Final, TextIO

from rich import box, table
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.text import Text

from pylbr.printable import printable

__all__ = ["Table", "ends", "print_table", "shown", "terminal", "terminal_width"]

_NARROWEST: Final = 12  # cells of a name on a narrow terminal
_UNLIMITED: Final = 1 << 16  # columns of a line that nothing limits


@dataclass(frozen=True)
class Table:
    """Rows of text.  Cells may come from files: they are printed as `printable` makes them.

    Attributes
    ----------
    rows : sequence of sequence of str
    head : sequence of str
        Names of the columns; empty: the table has no head.
    right : collection of int
        Columns of numbers, aligned right.
    names : bool
        Other columns contain names: a narrow terminal shows both ends of a name.  Otherwise they
        contain prose, which a narrow terminal wraps.
    markdown : bool
        The plain text is a Markdown table.
    indent : int
    """

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    right: frozenset[int] = frozenset()
    names: bool = False
    markdown: bool = False
    indent: int = 0

    def __str__(self) -> str:
        """Plain text, however wide."""
        lines = self._cells()
        if self.markdown:
            lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        padded = [[self._padded(i, cell, widths[i]) for i, cell in enumerate(line)]
                  for line in lines]
        if self.markdown:
            text = ["| " + " | ".join(line) + " |" for line in padded]
            text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        else:
            text = [" " * self.indent + "  ".join(line).rstrip() for line in padded]
        return "\n".join(text)

    def _repr_html_(self) -> str:
        """The table for a notebook; cells are escaped."""
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(
                f'<{tag} style="text-align: {"right" if i in self.right else "left"}">'
                f"{escape(cell)}</{tag}>" for i, cell in enumerate(cells)) + "</tr>\n"

        lines = self._cells()
        head = f"<thead>\n{line(lines.pop(0), 'th')}</thead>\n" if self.head else ""
        body = "".join(line(cells, "td") for cells in lines)
        return f"<table>\n{head}<tbody>\n{body}</tbody>\n</table>"

    def __rich__(self) -> RenderableType:
        """The table for a terminal."""
        laid_out = table.Table(box=box.SIMPLE_HEAD if self.markdown else None, pad_edge=False,
                               show_header=bool(self.head), header_style="bold")
        head, *rows = self._cells() if self.head else [[""] * self._width(), *self._cells()]
        for i, name in enumerate(head):
            number = i in self.right
            laid_out.add_column(Text(name), justify="right" if number else "left",
                                no_wrap=number, overflow="fold")
        for row in rows:
            laid_out.add_row(*(
                _Name(cell) if self.names and i not in self.right else Text(cell)
                for i, cell in enumerate(row)))
        return Padding(laid_out, (0, 0, 0, self.indent), expand=False)

    def _width(self) -> int:
        return len(self.rows[0]) if self.rows else 0

    def _cells(self) -> list[list[str]]:
        lines = [self.head, *self.rows] if self.head else self.rows
        return [[printable(cell) for cell in line] for line in lines]

    def _padded(self, column: int, cell: str, width: int) -> str:
        space = " " * (width - cell_len(cell))
        return space + cell if column in self.right else cell + space


class _Name:
    """A cell that shows both ends of a name where there is no room for all of it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(ends(self._text, options.max_width), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self._text)
        return Measurement(min(_NARROWEST, width), width)


def ends(text: str, width: int) -> str:
    """`text`, or its two ends where it is too wide: a name's last part and file matter."""
    if cell_len(text) <= width:
        return text
    tail = max(width - 1, 0) // 2
    first = set_cell_size(text, max(width - 1 - tail, 0))
    return first + "\u2026" + set_cell_size(text[::-1], tail)[::-1]


@dataclass(frozen=True)
class _Shown:
    """How standard output is to be treated: colours (None: as its environment has it), and the
    columns of the terminal that its reader is, 0 for none."""

    colour: bool | None = None
    width: int = 0


_PLAIN: Final = _Shown()
_SHOWN: ContextVar[_Shown] = ContextVar("shown", default=_PLAIN)


@contextlib.contextmanager
def shown(colour: bool | None = None, width: int = 0) -> Iterator[None]:
    """Meanwhile, print on standard output with or without colours, and for so many columns.

    Parameters
    ----------
    colour : bool, optional
        None: as ``NO_COLOR`` and ``TERM`` have it, on a terminal alone.
    width : int
        Columns of the terminal on which a pager shows it; 0: standard output is what it is.
    """
    token = _SHOWN.set(_Shown(colour, width))
    try:
        yield
    finally:
        _SHOWN.reset(token)


def terminal(stream: TextIO | None = None) -> Console | None:
    """The terminal that `stream` (default standard output) is; None if it is none.

    ``NO_COLOR``, ``TERM``, ``COLUMNS`` and `shown` are respected.
    """
    how = _SHOWN.get() if stream in (None, sys.stdout) else _PLAIN
    stream = stream or sys.stdout
    if not stream.isatty() and not how.width and not how.colour:
        return None
    wide = None if stream.isatty() else how.width or _UNLIMITED
    return Console(file=stream, force_terminal=True, markup=False, emoji=False, highlight=False,
                   width=wide, no_color=None if how.colour is None else not how.colour,
                   color_system={None: "auto", True: "standard", False: None}[how.colour])


def terminal_width() -> int:
    """Columns of the terminal that shows standard output; 0 where none does."""
    console = terminal()
    return console.width if console and console.width < _UNLIMITED else 0


def print_table(content: Table, stream: TextIO | None = None) -> None:
    """Print a table on `stream`, default standard output."""
    stream = stream or sys.stdout
    console = terminal(stream)
    if console:  # where not even the numbers have room, lines run over rather than lose some
        unlimited = console.options.update(max_width=_UNLIMITED)
        least = Measurement.get(console, unlimited, content).minimum
        console.width = max(console.width, least)
        console.print(content)
    elif content.rows or content.head:
        print(content, file=stream)
