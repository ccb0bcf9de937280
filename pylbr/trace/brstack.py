"""Words and lines of ``perf script`` with branch stacks: the twin of `pylbr.trace._brstack`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np

from pylbr.trace.perf_abi import (
    BRANCH_TYPE_NAMES,
    NEW_TYPE_NAMES,
    NEW_TYPE_SHIFT,
    SPEC_NAMES,
    SPEC_SHIFT,
    TYPE_SHIFT,
    BranchType,
)

__all__ = [
    "AT_END", "BAD_ENTRY", "NAMES", "NO_ENTRIES", "NO_ROOM", "PADDING", "ROW_DTYPE", "Prefix",
    "hash_of", "parse_entries", "parse_line", "parse_prefix",
    "prefix_of",
]

#: Bytes that must lie behind a window for the compiled parser.
PADDING: Final = 64
#: One line: hashes of the names of event and task; `line_start` is an offset in the window.
ROW_DTYPE: Final = np.dtype([
    ("ip", "u8"), ("time", "u8"), ("period", "u8"), ("event", "u8"), ("comm", "u8"),
    ("pid", "i4"), ("tid", "i4"), ("cpu", "u4"), ("line_start", "u4"),
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
_FIRST: Final = re.compile(rb"(?:^|(?<=[ \t]))0x")
_WORD: Final = re.compile(rb"([ \t]*)([^ \t]+)")
_KINDS: Final = (
    ("time", re.compile(rb"\d+\.\d*:")), ("event", re.compile(rb"[^\n]+:")),
    ("cpu", re.compile(rb"\[\d+\]")), ("decimal", re.compile(rb"-?\d+")),
    ("hexadecimal", re.compile(rb"[0-9a-fA-F]{1,16}")), ("task", re.compile(rb"-?\d+/\d+")),
)
_ANCHORS: Final = ("time", "event", "cpu", "task")
_MAX_WORDS: Final = 64
_WIDE: Final = 17


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


def hash_of(name: bytes) -> int:
    """64-bit FNV-1a; 0 for no name."""
    value = 0xCBF29CE484222325 if name else 0
    for byte in name:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def _int32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def parse_prefix(text: bytes) -> Prefix | None:
    """Fields before the entries; None if nothing in `text` looks like one.

    perf prints, each only if asked for: task name, pid or tid or pid/tid, [cpu], seconds,
    period, event name, instruction pointer, symbol, file.  Words with marks of their own
    (``1/2``, ``[001]``, ``1.5:``, ``cycles:``) are anchors.  The instruction pointer is the
    first number behind the last anchor that fills 17 columns, or, in text that was squeezed,
    the first number behind the event, or the last of the first run of numbers where there is
    no event.  A decimal right before the first anchor, or before the instruction pointer if
    there is none, is a pid.
    """
    words = []
    for gap, word in _WORD.findall(text)[:_MAX_WORDS]:
        kind = next((name for name, form in _KINDS if form.fullmatch(word)), "other")
        words.append((kind, word, len(gap) + len(word)))
    found: dict = {}
    head, anchor = -1, 0
    for i, (kind, word, _) in enumerate(words):
        if kind not in _ANCHORS:
            continue
        if kind == "event" and anchor and words[anchor - 1][0] == "event":
            continue  # a symbol that ends in a colon
        if kind == "task":
            pid, tid = word.split(b"/")
            found["pid"], found["tid"] = _int32(int(pid)), _int32(int(tid))
        elif kind == "cpu":
            found["cpu"] = int(word[1:-1]) % 2**32
        elif kind == "time":
            whole, fraction = word[:-1].split(b".")
            found["time"] = (int(whole) * 10**9 + int((fraction + b"0" * 9)[:9])) % 2**64
        else:
            found["event"] = word[:-1]
            if i > anchor > 0 and words[i - 1][0] == "decimal":
                found["period"] = int(words[i - 1][1]) % 2**64
        head = i if head < 0 else head
        anchor = i + 1
    ip = _instruction_pointer(words, anchor)
    if ip >= 0 and not words[ip][1].startswith(b"-"):
        found["ip"] = int(words[ip][1], 16) % 2**64
    head = ip if head < 0 else head
    if head > 0 and words[head][0] != "task" and words[head - 1][0] == "decimal":
        head -= 1
        found["pid"] = found["tid"] = _int32(int(words[head][1]))
    if head > 0:
        found["comm"] = text[:sum(width for _, _, width in words[:head])].lstrip(b" \t")
    if words and not anchor and ip < 0:
        return None
    return Prefix(**found)


def _instruction_pointer(words: list[tuple[str, bytes, int]], anchor: int) -> int:
    """Index of the word that is the instruction pointer, -1 if none is."""
    run = -1
    for i in range(anchor, len(words)):
        if words[i][0] in ("decimal", "hexadecimal"):
            if words[i][2] >= _WIDE:
                return i
            if run < 0 or (run == i - 1 and words[max(anchor - 1, 0)][0] != "event"):
                run = i
    return run


def parse_entries(text: bytes) -> list[tuple[int, int, int]] | None:
    """Entries as (from, to, flags), newest first; None if one is malformed."""
    entries, at = [], 0
    while at < len(text):
        match = _ENTRY.match(text, at)
        if match is None:
            return None
        source, target, event, in_tx, abort, cycles, rest = match.groups()
        if cycles and int(cycles) > 0xFFFF:
            return None
        flags = (b"M" in event) | (b"P" in event) << 1 | (b"N" in event) << 33
        flags |= (in_tx == b"X") << 2 | (abort == b"A") << 3 | int(cycles or 0) << 4
        for name in (rest or b"").split(b"/"):
            if name not in (b"", b"-"):
                if name not in NAMES:
                    return None
                flags |= NAMES[name]
        entries.append((int(source, 16), int(target, 16), flags))
        at = match.end()
        while at < len(text) and text[at] in b" \t":
            at += 1
    return entries


def prefix_of(line: bytes) -> Prefix | None:
    """`parse_prefix` of what stands before the first entry of a line."""
    first = _FIRST.search(line)
    return parse_prefix(line if first is None else line[:first.start()])


def parse_line(line: bytes) -> tuple[int, Prefix | None, list[tuple[int, int, int]]]:
    """A line without its end: why it is no sample with entries or `AT_END`, and its parts."""
    first = _FIRST.search(line)
    if first is None or line.startswith(b"#"):
        return NO_ENTRIES, None, []
    prefix = parse_prefix(line[:first.start()])
    if prefix is None:
        return NO_ENTRIES, None, []
    entries = parse_entries(line[first.start():])
    return (BAD_ENTRY, prefix, []) if entries is None else (AT_END, prefix, entries)
