"""Changes of one statement, by its tokens: operators, constants, arguments.  Python and Cython."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Edit", "Token", "changes", "split", "tokens"]

_COMPARISONS = {"<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"),
                "==": ("!=",), "!=": ("==",)}
_BINARY = {"+": "-", "-": "+", "*": "+", "//": "*", "%": "//", "<<": ">>", ">>": "<<", "&": "|",
           "|": "&", "^": "|", "/": "*"}
_AUGMENTED = {"+=": "-=", "-=": "+=", "|=": "&=", "&=": "|=", "^=": "|=", "<<=": ">>=",
              ">>=": "<<=", "*=": "+=", "//=": "*="}
_WORDS = {"and": "or", "or": "and", "True": "False", "False": "True"}
_OPENS, _CLOSES = "([{", ")]}"


@dataclass(frozen=True)
class Token:
    """A token of a statement: its text, where it starts and ends in it, its depth in brackets."""

    text: str
    start: int
    end: int
    depth: int
    operand: bool       # it can stand on the left of a binary operator
    plain: bool         # no part of a Cython type in a cast


@dataclass(frozen=True)
class Edit:
    """Text that takes the place of [start, end)."""

    start: int
    end: int
    new: str


def _is_operand(kind: int, text: str) -> bool:
    if kind == tokenize.NAME:
        return not keyword.iskeyword(text) or text in ("True", "False", "None")
    return kind in (tokenize.NUMBER, tokenize.STRING) or text in (")", "]", "}")


def tokens(statement: str) -> list[Token]:
    """The tokens of one statement; ``<type>`` and ``&name`` of Cython are told from operators."""
    lines = statement.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found: list[Token] = []
    depth, cast, operand = 0, False, False
    for t in tokenize.generate_tokens(io.StringIO(statement).readline):
        if t.type in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
                      tokenize.ENDMARKER, tokenize.COMMENT) or not t.string.strip():
            continue
        depth -= t.string in _CLOSES
        opens = t.string == "<" and not operand and not cast
        closes = t.string == ">" and cast
        cast = cast or opens
        operand = not cast and _is_operand(t.type, t.string)
        found.append(Token(t.string, starts[t.start[0] - 1] + t.start[1],
                           starts[t.end[0] - 1] + t.end[1], depth, operand, not cast))
        cast = cast and not closes
        depth += t.string in _OPENS
    return found


def split(part: list[Token]) -> list[list[Token]]:
    """The arguments that commas outside of further brackets separate."""
    pieces: list[list[Token]] = [[]]
    for t in part:
        if t.text == "," and t.depth == part[0].depth:
            pieces.append([])
        else:
            pieces[-1].append(t)
    return [piece for piece in pieces if piece]


def _arguments(row: list[Token], at: int) -> list[list[Token]]:
    """Arguments of the call whose bracket is at `at`."""
    depth, end = row[at].depth, at + 1
    while end < len(row) and not (row[end].text == ")" and row[end].depth == depth):
        end += 1
    part = row[at + 1:end]
    if not part or any(t.text in ("for", "lambda") for t in part):
        return []
    return split(part)


def _of_calls(text: str, row: list[Token]) -> Iterator[Edit]:
    for at in range(1, len(row)):
        if row[at].text != "(" or not row[at - 1].operand or not row[at].plain:
            continue
        found = _arguments(row, at)
        for first, second in pairwise(found):
            if any(t.text in ("=", "*", "**") and t.depth == first[0].depth
                   for t in (*first[:2], *second[:2])):
                continue
            a, b = text[first[0].start:first[-1].end], text[second[0].start:second[-1].end]
            if a != b:
                between = text[first[-1].end:second[0].start]
                yield Edit(first[0].start, second[-1].end, b + between + a)
        for before, piece in pairwise(found):
            if len(piece) > 2 and piece[1].text == "=":
                yield Edit(before[-1].end, piece[-1].end, "")


def _number(text: str) -> str | None:
    try:
        return str(int(text, 0) + 1)
    except ValueError:
        return None


def _of_token(row: list[Token], at: int, loops: list[int]) -> Iterator[str]:
    """What may stand for the token at `at`."""
    t, before = row[at], row[at - 1] if at else None
    binary = before is not None and before.operand
    following = row[at + 1].text if at + 1 < len(row) else ""
    if t.text in _COMPARISONS and binary:
        yield from _COMPARISONS[t.text]
    elif t.text in _BINARY and binary:
        yield _BINARY[t.text]
    elif t.text in _AUGMENTED:
        yield _AUGMENTED[t.text]
    elif t.text in _WORDS:
        yield _WORDS[t.text]
    elif t.text in ("-", "~") or t.text == "not" and (before is None or before.text != "is"):
        yield ""
    elif t.text == "is":
        yield "is not" if following != "not" else "is not not"
    elif t.text == "in" and at not in loops and before is not None and before.text != "not":
        yield "not in"
    elif t.text[0].isdigit() and (new := _number(t.text)) is not None:
        yield new


def _loops(row: list[Token]) -> list[int]:
    """Where an ``in`` belongs to a ``for``."""
    found, open_ = [], []
    for at, t in enumerate(row):
        if t.text == "for":
            open_.append(t.depth)
        elif t.text == "in" and open_ and open_[-1] == t.depth:
            open_.pop()
            found.append(at)
    return found


def changes(text: str, first: int = 0, last: int | None = None) -> Iterator[Edit]:
    """All changes of the tokens of `text` that lie in [first, last)."""
    row = tokens(text)
    last = len(text) if last is None else last
    loops = _loops(row)
    for at, t in enumerate(row):
        if t.plain and first <= t.start and t.end <= last:
            for new in _of_token(row, at, loops):
                if new == "is not not":
                    yield Edit(t.start, row[at + 1].end, "is")
                else:
                    yield Edit(t.start, t.end, new)
    yield from (edit for edit in _of_calls(text, row) if first <= edit.start and edit.end <= last)
