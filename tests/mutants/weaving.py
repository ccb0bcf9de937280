"""A source with all its mutants in it, each under a switch: one build serves all of them.

``x = a + b`` becomes ``if selected(7): x = a - b``, ``elif selected(8): pass`` and ``else: x = a +
b``; a condition or the value of a declaration becomes a conditional expression.  Only what lies in
functions is changed; what runs at import, headers of functions, decorators and docstrings stay.
"""

from __future__ import annotations

import hashlib
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from tests.mutants.edits import Edit, Token, changes, split, tokens

__all__ = ["Mutant", "Woven", "weave"]

SWITCH = "_mutant_selected_"
_CYTHON = f'cdef extern from "selected.h" nogil:\n    bint {SWITCH}(int number)\n'
_PYTHON = f"from mutant_switch import selected as {SWITCH}\n"
_FUNCTION = re.compile(r"(async\s+def|def|cpdef|cdef)\b")
_HEADERS = ("if", "elif", "while")
_LEFT = ("global", "nonlocal", "import", "from", "cimport", "with", "for", "try", "except", "else",
         "finally", "class", "def", "match", "case", "@", "pass", "async", "cpdef", "ctypedef")
_DELETED = ("raise", "continue", "break")


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes
    ----------
    file : str
    line : int
    old, new : str
        The statement, and what stands there in its place; on one line.
    function : str
        Name of the innermost function.
    """

    file: str
    line: int
    old: str
    new: str
    function: str

    @property
    def key(self) -> str:
        """Does not change with lines above."""
        text = "\n".join((self.file, self.function, self.old, self.new))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.old}  ->  {self.new}"


@dataclass
class Woven:
    """A woven source: its text, its mutants by number, and those of each line of it."""

    text: str
    mutants: dict[int, Mutant]
    lines: dict[int, list[int]]


@dataclass(frozen=True)
class _Statement:
    text: str           # without indentation and comment
    line: int           # of the source, from 0
    column: int
    start: int          # in the source
    end: int
    function: str


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _statements(source: str) -> Iterator[tuple[_Statement, bool]]:
    """The logical lines, and whether each lies in a function."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    first = last = None
    functions: list[tuple[int, str]] = []
    for t in tokenize.generate_tokens(StringIO(source).readline):
        if t.type == tokenize.NEWLINE and first is not None:
            start, end = starts[first[0] - 1] + first[1], starts[last[0] - 1] + last[1]
            text, column = source[start:end], first[1]
            while functions and column <= functions[-1][0]:
                functions.pop()
            name = functions[-1][1] if functions else ""
            yield _Statement(text, first[0] - 1, column, start, end, name), bool(functions)
            if _FUNCTION.match(text) and text.endswith(":") and "(" in text and not re.match(
                    r"cdef\s+(class|extern|enum|struct)\b", text):
                functions.append((column, re.findall(r"(\w+)\s*\(", text)[0]))
            first = None
        elif t.type not in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT,
                            tokenize.NEWLINE, tokenize.ENDMARKER) and t.string.strip(" \\"):
            first = first or t.start
            last = t.end


def _applied(text: str, edit: Edit) -> str:
    return text[:edit.start] + edit.new + text[edit.end:]


class _Weaver:
    def __init__(self, file: str, number: int, dropped: set[str]) -> None:
        self.file, self.number, self.dropped = file, number, dropped
        self.mutants: dict[int, Mutant] = {}

    def _new(self, statement: _Statement, text: str) -> int | None:
        mutant = Mutant(self.file, statement.line + 1, _flat(statement.text), _flat(text),
                        statement.function)
        if mutant.key in self.dropped or mutant.key in {m.key for m in self.mutants.values()}:
            return None
        number, self.number = self.number, self.number + 1
        self.mutants[number] = mutant
        return number

    def _expression(self, statement: _Statement, start: int, end: int) -> str | None:
        """[start, end) of the statement, which is an expression, with its changes."""
        text, arms = statement.text, []
        for edit in changes(text, start, end):
            changed = _applied(text, edit)
            number = self._new(statement, changed)
            if number is not None:
                arms.append(f"({changed[start:len(changed) - (len(text) - end)]}) "
                            f"if {SWITCH}({number}) else\n")
        return f"({''.join(arms)}({text[start:end]}))" if arms else None

    def _replaced(self, statement: _Statement, spans: list[tuple[int, int]]) -> str | None:
        """The statement with the expressions of `spans` changed."""
        result, at, any_ = "", 0, False
        for start, end in spans:
            new = self._expression(statement, start, end)
            any_ = any_ or new is not None
            result += statement.text[at:start] + (new or statement.text[start:end])
            at = end
        return result + statement.text[at:] if any_ else None

    def _header(self, statement: _Statement, row: list[Token]) -> str | None:
        text = statement.text
        if not text.endswith(":") or any(
                t.text == ":" and t.depth == 0 for t in row[:-1] if t.plain):
            return None
        start, end = row[1].start, row[-2].end
        if len(list(changes(text, start, end))) == 0:
            number = self._new(statement, f"{text[:start]}not ({text[start:end]}):")
            if number is None:
                return None
            whole = text[start:end]
            return f"{text[:start]}(not ({whole}) if {SWITCH}({number}) else\n({whole})):"
        return self._replaced(statement, [(start, end)])

    def _range(self, statement: _Statement, row: list[Token]) -> str | None:
        """``for x in range(...):``: each argument."""
        found = re.match(r"for \w+ in range\(", statement.text)
        if found is None or not statement.text.endswith("):"):
            return None
        inner = [t for t in row if found.end() <= t.start < len(statement.text) - 2]
        return self._replaced(statement, [(p[0].start, p[-1].end) for p in split(inner)])

    def _declaration(self, statement: _Statement, row: list[Token]) -> str | None:
        if statement.text.endswith(":"):
            return None
        spans = []
        for piece in split(row):
            at = next((i for i, t in enumerate(piece) if t.text == "=" and t.depth == 0), None)
            if at is not None and at + 1 < len(piece):
                spans.append((piece[at + 1].start, piece[-1].end))
        return self._replaced(statement, spans)

    def _simple(self, statement: _Statement, row: list[Token]) -> str | None:
        """A statement of one line: a chain of its variants."""
        text, arms = statement.text, []
        variants = [_applied(text, edit) for edit in changes(text)]
        deletable = row[0].text in _DELETED or row[0].text not in ("return", "assert", "yield")
        if deletable and not (row[0].text == "raise" and statement.text == "raise"):
            variants.append("pass")
        for variant in variants:
            number = self._new(statement, variant)
            if number is not None:
                arms.append(f"if {SWITCH}({number}): {variant}\n")
        if not arms:
            return None
        margin = " " * statement.column
        return f"{margin}el".join(arms) + f"{margin}else: {text}"

    def statement(self, statement: _Statement) -> str | None:
        """The woven form, or None if nothing changes."""
        row = tokens(statement.text)
        word = row[0].text
        if any(t.text == ";" for t in row) or re.fullmatch(r"[rbfRBF]?(\"|').*", statement.text,
                                                           re.S):
            return None
        if word in _HEADERS:
            return self._header(statement, row)
        if word == "for":
            return self._range(statement, row)
        if word == "cdef":
            return self._declaration(statement, row)
        if word in _LEFT or statement.text.endswith(":"):
            return None
        if len(row) > 1 and row[1].text == ":" and row[0].operand:
            return None  # annotated
        return self._simple(statement, row)


def weave(file: str, source: str, first: int, dropped: set[str] = frozenset()) -> Woven:
    """Weave all mutants of `source` but those whose keys are `dropped`, numbered from `first`."""
    weaver, parts, at, inserted = _Weaver(file, first, set(dropped)), [], 0, False
    lines: dict[int, list[int]] = {}
    line, index = 1, 0

    def put(text: str) -> None:
        nonlocal line
        parts.append(text)
        line += text.count("\n")

    for statement, inside in _statements(source):
        if not inserted and not (index == 0 and statement.text[:1] in "\"'r") and (
                not statement.text.startswith("from __future__")):
            put(source[at:statement.start] + (_PYTHON if file.endswith(".py") else _CYTHON))
            at, inserted = statement.start, True
        index += 1
        if not inside or _FUNCTION.match(statement.text) and statement.text.endswith(":"):
            continue
        before = weaver.number
        woven = weaver.statement(statement)
        if woven is None:
            continue
        put(source[at:statement.start])
        numbers = list(range(before, weaver.number))
        for offset, text in enumerate(woven.split("\n")):
            named = [int(n) for n in re.findall(rf"{SWITCH}\((\d+)\)", text)]
            lines[line + offset] = named or numbers
        put(woven)
        at = statement.end
    put(source[at:])
    return Woven("".join(parts), weaver.mutants, lines)
