"""Words and lines of ``perf script`` with branch stacks: the twin of `pylbr.perf._brstack`."""

from __future__ import annotations

import re
from enum import IntFlag
from typing import Any, Final, NamedTuple

import numpy as np

from pylbr.perf.abi import (
    BRANCH_TYPE_NAMES,
    NEW_TYPE_NAMES,
    NEW_TYPE_SHIFT,
    SPEC_NAMES,
    SPEC_SHIFT,
    TYPE_SHIFT,
    BranchType,
)

__all__ = [
    "AT_END", "BAD_ENTRY", "NAMES", "NO_ENTRIES", "NO_ROOM", "PADDING", "ROW_DTYPE", "Column",
    "FIRST_ENTRY", "Prefix", "hash_of", "parse_entries", "parse_head", "parse_line",
    "parse_marked", "parse_prefix", "prefix_of",
]

#: Bytes that must lie after a window for the compiled parser.
PADDING: Final = 64
#: One line: hashes of the names of event and task; `line_start` is an offset in the window,
#: `columns` of `Column`.
ROW_DTYPE: Final = np.dtype([
    ("ip", "u8"), ("time", "u8"), ("period", "u8"), ("event", "u8"), ("comm", "u8"),
    ("pid", "i4"), ("tid", "i4"), ("cpu", "u4"), ("line_start", "u4"), ("columns", "u8"),
])
AT_END, NO_ENTRIES, BAD_ENTRY, NO_ROOM = range(4)

#: What may stand in an entry's last two fields -> bits of its third word.
NAMES: Final[dict[bytes, int]] = {
    **{name.encode(): i << TYPE_SHIFT for i, name in enumerate(BRANCH_TYPE_NAMES) if name},
    **{
        name.encode(): BranchType.EXTEND_ABI << TYPE_SHIFT | i << NEW_TYPE_SHIFT
        for i, name in enumerate(NEW_TYPE_NAMES)
    },
    **{name.encode(): i << SPEC_SHIFT for i, name in enumerate(SPEC_NAMES) if i},
    b"N/A": 0,
}

_ENTRY: Final = re.compile(
    rb"0x([0-9a-fA-F]{1,16})(?:\((?:(?!\)/).)*\))?/0x([0-9a-fA-F]{1,16})(?:\((?:(?!\)/).)*\))?"
    rb"/([MPN-]{1,2})/([X-])/([A-])(?:/(\d+)(?:/([^ \t]*))?)?(?=[ \t]|$)", re.DOTALL
)
#: The first word that is an entry, or would be one: 0xFROM/0xTO or 0xFROM(file)/0xTO.
FIRST_ENTRY: Final = re.compile(rb"(?:^|(?<=[ \t]))0x[^ \t/(]*(?:\(|/0x)")
_TASK: Final = re.compile(rb"( *-?\d+)/(-?\d+)( +)")
_NUMBER: Final = re.compile(rb"( *-?\d+) ")
_CPU: Final = re.compile(rb"\[(\d{3,10})\] ")
_MISC: Final = re.compile(rb"(?=.{6})[KUHGg]{1,5} +")
_TIME: Final = re.compile(rb"( *\d+)\.(\d{6}|\d{9}): ")
#: Its name, or "raw 0x20c4" of one that has none.
_EVENT: Final = re.compile(rb" *((?:raw |(?=[^ 0-9]))[^ ]+): ")
_PADDED_COMM: Final = re.compile(rb" .{14}[^ ] ", re.DOTALL)  # a task's name has 15 bytes
_MARKED_COLUMNS: Final = re.compile(
    rb"(?:.*?[ \t])??(?:(?:(-?\d{1,10})/(-?\d{1,10})|(-?\d{1,10}))[ \t]+)?"
    rb"(?:\[(\d{1,10})\][ \t]+)?(?:(\d{1,20})\.(\d+):[ \t]|$)", re.DOTALL)
_HEXADECIMAL: Final = re.compile(rb"( *)([0-9a-fA-F]{1,16})(?= |$)")
#: Columns as perf pads them: a task's number (until 6.1, and later), a period, an unsigned
#: number of 64 bits, the blanks of empty flags, ``misc``, a task's name.
_NARROW, _WIDER, _PERIOD, _WORD, _NO_FLAGS, _MISC_WIDTH, _COMM = 5, 7, 10, 16, 24, 6, 16


class Column(IntFlag):
    """What a line has before its entries."""

    TASK = 1
    PID_OR_TID = 2
    CPU = 4
    TIME = 8
    PERIOD = 16
    EVENT = 32
    IP = 64
    COMM = 128


#: Columns that are known by more than their width.
_MARKED: Final = Column.TASK | Column.CPU | Column.TIME | Column.EVENT


class Prefix(NamedTuple):
    """What stands before the entries of a line; what is not there is 0, `period` 1."""

    ip: int = 0
    time: int = 0
    period: int = 1
    event: bytes = b""
    comm: bytes = b""
    pid: int = 0
    tid: int = 0
    cpu: int = 0
    columns: int = 0


def hash_of(name: bytes) -> int:
    """64-bit FNV-1a; 0 for no name."""
    value = 0xCBF29CE484222325 if name else 0
    for byte in name:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def _int32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def parse_prefix(text: bytes) -> Prefix | None:
    """Fields before the entries, as perf prints them; None if `text` is anything else.

    perf prints, each only if asked for, and in this order: task name, pid or tid or pid/tid,
    [cpu], misc, seconds, period, event name, flags, data address, weight, instruction
    pointer, and after that a symbol and a file.  A column that a name of its own marks
    (``1/2``, ``[001]``, ``1.500000:``, ``cycles:``) is recognised by it; numbers are distinguished
    by their widths, which are fixed: a lone pid or tid fills 5 or 7 columns, a period 10, a
    data address or weight 16, an instruction pointer 17.  Nothing else is accepted, so that
    text whose blanks were squeezed is refused.
    """
    found = _columns(text)
    if found is None and _PADDED_COMM.match(text):
        comm = text[:_COMM].lstrip(b" ")
        found = _columns(text[_COMM + 1:])
        if found is not None:
            found |= {"comm": comm, "columns": found["columns"] | int(Column.COMM)}
    return None if found is None else Prefix(**found)


def parse_head(text: bytes, whole_line: bool = False) -> Prefix | None:
    """`parse_prefix` also of a line whose task name does not fill 16 columns.

    perf prints longer names in full; and where call chains follow, which begin on the next
    line (`whole_line`), shorter ones without blanks before them.
    """
    found = parse_prefix(text)
    if found is not None:
        return found
    for at in range(1 if whole_line else _COMM, len(text)):
        if text[at] != 0x20 or text[at - 1] == 0x20:
            continue
        rest = _columns(text[at + 1:])
        if rest is not None and (whole_line or rest["columns"] & _MARKED):
            columns = rest.pop("columns") | int(Column.COMM)
            return Prefix(**rest, comm=text[:at].lstrip(b" "), columns=columns)
    return None


def parse_marked(text: bytes) -> Prefix | None:
    """Task, CPU and time, as far as they are there, of columns that need not be padded.

    For lines that end in a name of their own, as events and branches of Intel PT do, so that
    no number but the task's stands between the name of the task and the time.
    """
    match = _MARKED_COLUMNS.match(text)
    if match is None:
        return None
    pid, tid, one, cpu, seconds, fraction = match.groups()
    found: dict[str, Any] = {}
    if cpu is not None:
        found["cpu"] = int(cpu) % 2**32
    if seconds is not None:
        found["time"] = (int(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0"))) % 2**64
    return Prefix(pid=_int32(int(pid or one or 0)), tid=_int32(int(tid or one or 0)), **found)


def _fits(column: bytes, width: int) -> bool:
    """Whether a right-aligned column is `width` wide, or wider because it had to be."""
    return len(column) == width or (len(column) > width and column[0] != 0x20)


def _columns(text: bytes) -> dict[str, Any] | None:
    """All columns but the task's name; None if something is none of them."""
    found: dict[str, Any] = {}
    at = columns = 0
    if match := _TASK.match(text):
        pid, tid, blanks = match.groups()
        width = _WIDER if len(pid) == _WIDER else _NARROW
        pad = max(width - len(tid), 0)
        if not _fits(pid, width) or len(blanks) < pad + 1:
            return None
        found["pid"], found["tid"] = _int32(int(pid)), _int32(int(tid))
        at, columns = match.start(3) + pad + 1, columns | Column.TASK
    elif (match := _NUMBER.match(text)) and (
        len(match[1]) in (_NARROW, _WIDER) or (len(match[1]) == 6 and match[1][0] != 0x20)
    ):
        found["pid"] = found["tid"] = _int32(int(match[1]))
        at, columns = match.end(), columns | Column.PID_OR_TID
    if match := _CPU.match(text, at):
        found["cpu"] = int(match[1]) % 2**32
        at, columns = match.end(), columns | Column.CPU
    if (match := _MISC.match(text, at)) and match.end() >= at + _MISC_WIDTH:
        at += _MISC_WIDTH
    if (match := _TIME.match(text, at)) and _fits(match[1], _NARROW):
        found["time"] = (int(match[1]) * 10**9 + int(match[2].ljust(9, b"0"))) % 2**64
        at, columns = match.end(), columns | Column.TIME
    if (match := _NUMBER.match(text, at)) and _fits(match[1], _PERIOD) and \
            not (len(match[1]) == _WORD and match[1][0] != 0x20) and b"-" not in match[1]:
        found["period"] = int(match[1]) % 2**64
        at, columns = match.end(), columns | Column.PERIOD
    if match := _EVENT.match(text, at):
        found["event"] = match[1]
        at, columns = match.end(), columns | Column.EVENT
    ip = _instruction_pointer(text, at)
    if ip is not None:
        found["ip"] = int(ip, 16)
        columns |= Column.IP
    elif not _only_numbers(text, at):
        return None
    return found | {"columns": int(columns)}


def _skip_numbers(text: bytes, at: int) -> int:
    """Offset after empty flags, a data address, a weight: each fills its width."""
    match = _HEXADECIMAL.match(text, at)
    if match and match.end() - at in (_NO_FLAGS + _WORD, _NO_FLAGS + _WORD + 1):
        at += _NO_FLAGS
    while (match := _HEXADECIMAL.match(text, at)) and match.end() - at == _WORD:
        at = match.end()
    return at


def _instruction_pointer(text: bytes, at: int) -> bytes | None:
    at = _skip_numbers(text, at)
    match = _HEXADECIMAL.match(text, at)
    return match[2] if match and match.end() - at == _WORD + 1 and match[1] else None


def _only_numbers(text: bytes, at: int) -> bool:
    return not text[_skip_numbers(text, at):].strip(b" ")


def parse_entries(text: bytes) -> tuple[list[tuple[int, int, int]] | None, int]:
    """Entries as (from, to, flags), newest first, and the offset after them.

    None if one is malformed; what is no entry at all ends them.
    """
    entries: list[tuple[int, int, int]] = []
    at = 0
    while at < len(text):
        match = _ENTRY.match(text, at)
        if match is None:
            return (None if text.startswith(b"0x", at) else entries), at
        source, target, event, in_tx, abort, cycles, rest = match.groups()
        if cycles and int(cycles) > 0xFFFF:
            return None, at
        flags = (b"M" in event) | (b"P" in event) << 1 | (b"N" in event) << 33
        flags |= (in_tx == b"X") << 2 | (abort == b"A") << 3 | int(cycles or 0) << 4
        for name in (rest or b"").split(b"/"):
            if name not in (b"", b"-"):
                if name not in NAMES:
                    return None, at
                flags |= NAMES[name]
        entries.append((int(source, 16), int(target, 16), flags))
        at = match.end()
        while at < len(text) and text[at] in b" \t":
            at += 1
    return entries, at


def prefix_of(line: bytes) -> Prefix | None:
    """`parse_prefix` of what stands before the first entry of a line."""
    first = FIRST_ENTRY.search(line)
    return parse_prefix(line if first is None else line[:first.start()])


def parse_line(line: bytes) -> tuple[int, Prefix | None, list[tuple[int, int, int]]]:
    """A line without its end: why it is no sample with entries or `AT_END`, and its parts."""
    first = FIRST_ENTRY.search(line)
    if first is None or line.startswith(b"#"):
        return NO_ENTRIES, None, []
    prefix = parse_prefix(line[:first.start()])
    if prefix is None:
        return NO_ENTRIES, None, []
    text = line[first.start():]
    entries, end = parse_entries(text)
    if entries is None or end < len(text):
        return BAD_ENTRY, prefix, []
    return AT_END, prefix, entries
