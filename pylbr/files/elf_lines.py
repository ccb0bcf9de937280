"""Source lines of addresses, out of the DWARF line tables of an ELF file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylbr.files.elf import DAMAGE, ELFFile

__all__ = ["SourceLine", "opened_dwarf", "ranges_of", "source_lines", "units_of"]

#: Compressed tables may claim any size: larger ones are not unpacked.
_LARGEST: Final = 1 << 28


class SourceLine(NamedTuple):
    """A line of a source file, by the path that the compiler was given."""

    file: str
    line: int


def source_lines(path: str | os.PathLike[str],
                 stretches: Iterable[tuple[int, int]]) -> dict[int, SourceLine]:
    """Where each line begins within some stretches of code.

    Parameters
    ----------
    path : path-like
        An ELF file with a .debug_line of its own.
    stretches : iterable of (int, int)
        Link addresses, first and past the end.

    Returns
    -------
    dict of int to SourceLine
        From that address on, up to the next, in order; line 0 is code of no line.  Empty if the
        file has no line tables.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        Its debug information is damaged, or claims to unpack to more than 256 MiB a section.
    """
    wanted = sorted(stretches)
    found: dict[int, SourceLine] = {}
    with open(path, "rb") as file:
        try:
            dwarf = opened_dwarf(file)
            for unit in units_of(dwarf, wanted) if dwarf else ():
                found.update(_rows(dwarf, unit, wanted))
        except DAMAGE as error:
            raise ValueError(f"{os.fspath(path)}: damaged debug information: {error}") from error
    return dict(sorted(found.items()))


def opened_dwarf(file: BinaryIO) -> Any:
    """The debug information of an open ELF file; None without a line table.

    Raises
    ------
    ValueError
        It claims to unpack to more than 256 MiB a section.
    DAMAGE
        The file is no whole ELF file.
    """
    elf = ELFFile(file)
    for section in elf.iter_sections():
        if section.compressed and section.data_size > _LARGEST:
            raise ValueError(f"{section.name} would unpack to {section.data_size:,} bytes")
    if not elf.has_dwarf_info(strict=True):
        return None
    dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)
    return dwarf if dwarf.debug_line_sec else None


def units_of(dwarf: Any, wanted: list[tuple[int, int]]) -> Iterator[Any]:
    """The units with code in what is wanted: by .debug_aranges where it has them, which spares
    reading all units."""
    table = dwarf.get_aranges()
    entries = table.entries if table else []
    begins = np.array([entry.begin_addr for entry in entries], np.uint64)
    ends = begins + np.array([entry.length for entry in entries], np.uint64)
    listed: set[int] = set()
    rest = []
    for start, end in wanted:
        found = np.flatnonzero((begins < np.uint64(end)) & (ends > np.uint64(start))).tolist()
        listed |= {entries[at].info_offset for at in found}
        if not found:
            rest.append((start, end))
    for offset in sorted(listed):
        yield dwarf.get_CU_at(offset)
    if not rest:
        return
    of_table = {entry.info_offset for entry in entries}
    for unit in dwarf.iter_CUs():
        if unit.cu_offset in of_table:
            continue
        top = unit.get_top_DIE()
        if top.tag in ("DW_TAG_compile_unit", "DW_TAG_skeleton_unit") and any(
                first < end and start < last
                for first, last in ranges_of(dwarf, unit, top) for start, end in rest):
            yield unit


def ranges_of(dwarf: Any, unit: Any, die: Any) -> list[tuple[int, int]]:
    """Addresses of a unit, or of what is in it, first and past the end."""
    attributes = die.attributes
    top = unit.get_top_DIE().attributes
    base = top["DW_AT_low_pc"].value if "DW_AT_low_pc" in top else 0
    if "DW_AT_ranges" in attributes:
        lists = dwarf.range_lists()
        entries = lists.get_range_list_at_offset(
            attributes["DW_AT_ranges"].value, unit) if lists else []
        found = []
        for entry in entries:
            if hasattr(entry, "base_address"):
                base = entry.base_address
                continue
            added = 0 if getattr(entry, "is_absolute", False) else base
            found.append((added + entry.begin_offset, added + entry.end_offset))
        return found
    if "DW_AT_high_pc" not in attributes or "DW_AT_low_pc" not in attributes:
        return []
    low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
    return [(low, high.value if high.form == "DW_FORM_addr" else low + high.value)]


def _rows(dwarf: Any, unit: Any, wanted: list[tuple[int, int]]) -> Iterator[
        tuple[int, SourceLine]]:
    """Beginnings of lines of one unit, within what is wanted."""
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return
    names: dict[int, str] = {}
    states = [entry.state for entry in program.get_entries() if entry.state is not None]
    begins: NDArray[np.uint64] = np.array([state.address for state in states], np.uint64)
    ends = np.append(begins[1:], begins[-1:])  # a row reaches to the next one
    real = (ends > begins) & ~np.array([state.end_sequence for state in states], bool)
    for start, end in wanted:
        inside = real & (begins < np.uint64(end)) & (ends > np.uint64(start))
        for at in np.flatnonzero(inside).tolist():
            state = states[at]
            yield max(state.address, start), _line(program, unit, state, names)


def _line(program: Any, unit: Any, state: Any, names: dict[int, str]) -> SourceLine:
    if state.file not in names:
        names[state.file] = _name(program, unit, state.file)
    return SourceLine(names[state.file], state.line)


def _name(program: Any, unit: Any, number: int) -> str:
    """Path of a file of a line program."""
    header = program.header
    since_5 = header["version"] >= 5
    files, folders = header["file_entry"], header["include_directory"]
    entry = files[number if since_5 else number - 1]
    top = unit.get_top_DIE().attributes
    built = _text(top["DW_AT_comp_dir"].value) if "DW_AT_comp_dir" in top else ""
    place = entry.dir_index
    if since_5:
        folder = _text(folders[place]) if place < len(folders) else ""
    else:
        folder = _text(folders[place - 1]) if 0 < place <= len(folders) else ""
    return os.path.normpath(os.path.join(built, folder, _text(entry.name)))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
