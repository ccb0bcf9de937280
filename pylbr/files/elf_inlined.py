"""Functions that are inlined at addresses, with their lines, out of the DWARF of an ELF file."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pylbr.files.elf import DAMAGE
from pylbr.files.elf_lines import opened_dwarf, ranges_of, units_of

__all__ = ["Frame", "Frames", "Scope"]


class Frame(NamedTuple):
    """A function in the stack of those that are inlined into one another.

    Attributes
    ----------
    function : str
        Its linkage name.
    declared : int
        The line where it is declared.
    line : int
        The line in it: of the instruction, or of the call of the frame within.
    discriminator : int
        As the file has it, of several blocks of one line.
    """

    function: str
    declared: int
    line: int
    discriminator: int


class Scope(NamedTuple):
    """A function, or a call of one that was inlined.

    Attributes
    ----------
    ranges : list of (int, int)
        Its link addresses, first and past the end.
    function : str
        Its linkage name.
    declared : int
        The line where it is declared; 0 if the compiler made it.
    call_line, discriminator : int
        Of the call, if it was inlined.
    trampoline : bool
        It does nothing but pass a call on, as Go's wrappers of methods do.
    inner : list of Scope
        What was inlined directly into it.
    """

    ranges: list[tuple[int, int]]
    function: str
    declared: int
    call_line: int
    discriminator: int
    trampoline: bool
    inner: list[Scope]


class Frames:
    """Frames of the addresses in some stretches of code.

    Parameters
    ----------
    path : path-like
        An ELF file with debug information of its own.
    stretches : iterable of (int, int)
        Link addresses, first and past the end; none within another.

    Attributes
    ----------
    ranges : dict of str to list of (int, int)
        Where all functions of a name are in the units with code in `stretches`.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        Its debug information is damaged, or claims to unpack to more than 256 MiB a section.
    """

    def __init__(self, path: str | os.PathLike[str], stretches: Iterable[tuple[int, int]]) -> None:
        wanted = sorted(stretches)
        ends = [end for _, end in wanted]

        def touched(first: int, past: int) -> bool:
            at = bisect_right(ends, first)
            return at < len(wanted) and wanted[at][0] < past

        self._functions: list[Scope] = []
        self.ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
        rows: dict[int, tuple[int, int, int]] = {}
        with open(path, "rb") as file:
            try:
                dwarf = opened_dwarf(file)
                for unit in units_of(dwarf, wanted) if dwarf else ():
                    # A function may have a part elsewhere, which is in none of the stretches.
                    parts: set[tuple[int, int]] = set()
                    for die, ranges in _functions(dwarf, unit):
                        self.ranges[_declaration(die)[0]] += ranges
                        if any(touched(*part) for part in ranges):
                            self._functions.append(_scope(dwarf, unit, die, ranges))
                            parts.update(ranges)
                    rows.update(_rows(dwarf, unit, sorted(parts)))
            except DAMAGE as error:
                raise ValueError(
                    f"{os.fspath(path)}: damaged debug information: {error}") from error
        self._spans = sorted((start, end, at) for at, one in enumerate(self._functions)
                             for start, end in one.ranges)
        self._starts = [start for start, _, _ in self._spans]
        self._begins = sorted(rows)
        self._lines = [rows[begin] for begin in self._begins]

    def function_at(self, address: int) -> Scope | None:
        """The function that has the code at an address."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._spans[at][1]:
            return None
        return self._functions[self._spans[at][2]]

    def at(self, address: int) -> tuple[Frame, ...]:
        """From the function to what is inlined last; empty where nothing is known."""
        scope = self.function_at(address)
        place = bisect_right(self._begins, address) - 1
        if scope is None or place < 0 or address >= self._lines[place][0]:
            return ()
        stack = [scope]
        while inner := next((one for one in stack[-1].inner if _within(one, address)), None):
            stack.append(inner)
        calls = [(one.call_line, one.discriminator) for one in stack[1:]]
        calls.append(self._lines[place][1:])
        return tuple(Frame(one.function, one.declared, line, discriminator)
                     for one, (line, discriminator) in zip(stack, calls, strict=True))


def _within(scope: Scope, address: int) -> bool:
    return any(start <= address < end for start, end in scope.ranges)


def _functions(dwarf: Any, unit: Any) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
    """Functions of a unit that have code, and where."""
    waiting = [unit.get_top_DIE()]
    while waiting:
        die = waiting.pop()
        for child in die.iter_children():
            if child.tag == "DW_TAG_subprogram":
                ranges = ranges_of(dwarf, unit, child)
                if ranges:
                    yield child, ranges
            elif child.tag in ("DW_TAG_namespace", "DW_TAG_class_type", "DW_TAG_structure_type"):
                waiting.append(child)


def _scope(dwarf: Any, unit: Any, die: Any, ranges: list[tuple[int, int]]) -> Scope:
    name, declared = _declaration(die)
    attributes = die.attributes

    def number(key: str) -> int:
        return int(attributes[key].value) if key in attributes else 0

    return Scope(ranges, name, declared, number("DW_AT_call_line"),
                  number("DW_AT_GNU_discriminator"), "DW_AT_trampoline" in attributes,
                 list(_inlined(dwarf, unit, die)))


def _inlined(dwarf: Any, unit: Any, die: Any) -> Iterator[Scope]:
    """What is inlined directly into a function; blocks between are passed."""
    for child in die.iter_children():
        if child.tag == "DW_TAG_inlined_subroutine":
            yield _scope(dwarf, unit, child, ranges_of(dwarf, unit, child))
        elif child.tag == "DW_TAG_lexical_block":
            yield from _inlined(dwarf, unit, child)


def _declaration(die: Any) -> tuple[str, int]:
    """Linkage name and line of a function, which may be where it points to."""
    name = linkage = ""
    declared = None
    for _ in range(8):  # a damaged file may point in a circle
        for key, value in die.attributes.items():
            if key in ("DW_AT_linkage_name", "DW_AT_MIPS_linkage_name"):
                linkage = linkage or _text(value.value)
            elif key == "DW_AT_name":
                name = name or _text(value.value)
            elif key == "DW_AT_decl_line" and declared is None:
                declared = int(value.value)
        origin = next((key for key in ("DW_AT_abstract_origin", "DW_AT_specification")
                       if key in die.attributes), None)
        if origin is None:
            break
        die = die.get_DIE_from_attribute(origin)
    return linkage or name, declared or 0


def _rows(dwarf: Any, unit: Any, wanted: list[tuple[int, int]]) -> Iterator[
        tuple[int, tuple[int, int, int]]]:
    """First address of each piece of a line; its end, the line, the discriminator."""
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return
    states = [entry.state for entry in program.get_entries() if entry.state is not None]
    begins = np.array([state.address for state in states], np.uint64)
    ends = np.append(begins[1:], begins[-1:])
    real = (ends > begins) & ~np.array([state.end_sequence for state in states], bool)
    for start, end in wanted:
        inside = real & (begins < np.uint64(end)) & (ends > np.uint64(start))
        for at in np.flatnonzero(inside).tolist():
            state = states[at]
            yield max(state.address, start), (min(int(ends[at]), end), state.line,
                                              state.discriminator)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
