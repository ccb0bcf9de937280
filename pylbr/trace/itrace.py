"""Text of ``perf script --itrace=b``: every branch that Intel PT or BTS recorded.

A line is a sample of the event ``branches`` and ends in ``FROM symbol (file) => TO symbol
(file)``.  What ``-F +flags`` prints gives the class, except of calls and jumps, which may be
direct or indirect; these, and all where there are no flags, are decoded in the files that
``--show-mmap-events`` or the options name.  ``-F +ipc`` gives cycles and instructions; a text
that has none, or marks no branch as missed, has no such column: it was not measured.

Source: perf-script(1), perf-intel-pt(1) of Linux 6.1; ``tools/perf/builtin-script.c``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag
from pylbr.errors import TraceError
from pylbr.files.format import Format, Head, Options
from pylbr.files.lines import Lines
from pylbr.files.module import Module
from pylbr.perf.brstack import parse_marked
from pylbr.perf.script_events import parse_record
from pylbr.perf.stacks import Comm, Mmap
from pylbr.trace.classes import ClassFiller
from pylbr.trace.metadata import Metadata, Task
from pylbr.trace.schema import COLUMNS
from pylbr.trace.trace import Part, StreamTrace

__all__ = ["ITRACE", "Itrace"]

_BLOCK: Final = 1 << 13
_ARROW: Final = re.compile(rb"[ \t]=>[ \t]+([0-9a-f]{1,16})(?=[ \t]|$)")
_SOURCE: Final = re.compile(
    rb":[ \t]+((?:[a-z]+(?:/[a-z_,]+/)?[ \t]+)*?)(?:\(([xDt]*)\)[ \t]+)?([0-9a-f]{1,16})(?=[ \t]|$)"
)
#: Events of Intel PT that are no branches, and errors in the trace.
_OTHER: Final = re.compile(
    rb"[ \t](cbr|psb|ptwrite|mwait|pwre|exstop|pwrx|evt|iflag|instructions|transactions)"
    rb"(?::[a-zA-Z]*)?:[ \t]|^ *(instruction trace error)"
)
_IPC: Final = re.compile(rb"IPC: *[0-9.]+ *\((\d+)/(\d+)\)")
#: What of a line shows a miss, a transaction or cycles.
_HINT: Final = re.compile(rb"miss|\([Dt]*x|IPC:")
_UNKNOWN: Final = 255
_FLAGS: Final = {
    b"jcc": BranchClass.COND, b"return": BranchClass.NEAR_RET, b"int": BranchClass.SOFT_INT,
    b"iret": BranchClass.IRET, b"syscall": BranchClass.SYSCALL, b"sysret": BranchClass.SYSRET,
    b"hw int": BranchClass.INTERRUPT, b"async": BranchClass.INTERRUPT,
    b"tx abrt": BranchClass.TSX_ABORT, b"call": _UNKNOWN, b"jmp": _UNKNOWN, b"": _UNKNOWN,
    b"br": _UNKNOWN,
}
#: Transfers between host and guest, which no last-branch record shows.
_NO_BRANCHES: Final = frozenset({b"vmentry", b"vmexit"})
_MAX_LOW: Final = 1 << 63


class Itrace(StreamTrace):
    """A text file made by ``perf script --itrace=b``.

    Raises
    ------
    TraceError
        With the line: no branch, time that runs backwards on a CPU, or a class that neither
        flags nor files give.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        options = options or Options()
        modules, tasks, measured = _events(os.fspath(path))
        metadata = Metadata(
            modules=(*modules, *options.modules), tasks=tasks,
            provenance={"source": os.fspath(path), "format": "perf script --itrace=b"},
        )
        columns = ("from", "to", "class", *measured, "cpl_from", "cpl_to", "task", "cpu")
        super().__init__(path, metadata, columns, self._read)
        self._passed: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was passed over so far, and how often."""
        passed = sorted(self._passed.items())
        return (f"passed over: {', '.join(f'{count} {what}' for what, count in passed)}",) \
            if passed else ()

    def _read(self) -> Iterator[Part]:
        filler = ClassFiller(self.metadata.modules, self.path, self.metadata.tasks)
        clock: dict[int, int] = {}
        index = 0
        self._passed.clear()
        with Lines(self.path) as lines:
            while True:
                first, offset = lines.number, lines.offset
                block = lines.block(_BLOCK)
                if not block:
                    return
                rows = []
                for i, line in enumerate(block):
                    place = first + i + 1, offset
                    if (row := self._row(line, place, clock)) is not None:
                        rows.append(row)
                    offset += len(line) + 1
                part = _part(rows, filler, index)
                index += len(rows)
                yield part

    def _row(
        self, line: bytes, place: tuple[int, int], clock: dict[int, int]
    ) -> tuple[int, ...] | None:
        """One branch as (from, to, class, flags, cycles, instructions, task, cpu)."""
        if not line.strip() or line.startswith(b"#") or b"PERF_RECORD_" in line:
            return None
        arrow = _ARROW.search(line)
        source = _last_source(line[:arrow.start()]) if arrow else None
        if arrow is None or source is None:
            if other := _OTHER.search(line):
                self._passed[(other[1] or other[2]).decode()] += 1
                return None
            raise self._fault(place, "is no branch as perf script --itrace=b prints it")
        kind, marks, address, head = source
        start, end = int(address, 16), int(arrow[1], 16)
        if not start or not end or kind.startswith(b"tr "):
            return None  # tracing began or ended here
        if kind in _NO_BRANCHES:
            self._passed[kind.decode()] += 1
            return None
        branch, flags = _class_of(kind)
        if branch is None:
            raise self._fault(place, f"flags {kind.decode('latin-1')!r} are unknown")
        if b"x" in marks:
            flags |= BranchFlag.IN_TSX
        prefix = parse_marked(head)
        if prefix is not None:
            if prefix.time < clock.get(prefix.cpu, 0):
                raise self._fault(place, f"time runs backwards on CPU {prefix.cpu}")
            clock[prefix.cpu] = prefix.time
        ipc = _IPC.search(line, arrow.end())
        instructions, cycles = (int(ipc[1]), int(ipc[2])) if ipc else (0, 0)
        tid, cpu = (prefix.tid, prefix.cpu) if prefix else (0, 0)
        limit = 0xFFFFFFFF
        return (start, end, branch, flags, min(cycles, limit), min(instructions, limit),
                tid % 2**32, cpu)

    def _fault(self, place: tuple[int, int], what: str) -> TraceError:
        return TraceError(self.path, f"line {place[0]}: {what}", place[1])


def _class_of(kind: bytes) -> tuple[int | None, int]:
    """`BranchClass` and `BranchFlag` of what ``-F +flags`` prints: ``jcc/miss/``, ``br miss``."""
    name, _, events = kind.partition(b"/")
    words = set(events.rstrip(b"/").split(b",")) - {b""}
    if name.endswith(b" miss"):
        name, words = name[:-5], words | {b"miss"}
    if words - {b"miss", b"not_taken"} or name not in _FLAGS:
        return None, 0
    flags = int(BranchFlag.MISPRED) if b"miss" in words else 0
    if b"not_taken" in words:
        return (int(BranchClass.NOT_TAKEN) if name == b"jcc" else None), flags
    return int(_FLAGS[name]), flags


def _last_source(text: bytes) -> tuple[bytes, bytes, bytes, bytes] | None:
    """Flags, marks, FROM and the fields before them, out of what stands before the arrow."""
    match = _SOURCE.search(text)
    while match is not None and text[match.start() - 1:match.start()].isdigit():
        match = _SOURCE.search(text, match.start() + 1)  # after the time, not the event
    if match is None:
        return None
    return b" ".join(match[1].split()), match[2] or b"", match[3], text[:match.start() + 1]


def _part(rows: list[tuple[int, ...]], filler: ClassFiller, index: int) -> Part:
    branches = np.zeros(len(rows), BRANCH_DTYPE)
    columns = list(zip(*rows, strict=True)) or [()] * 8
    for name, values in zip(
        ("from", "to", "class", "flags", "cycles", "instructions"), columns, strict=False
    ):
        branches[name] = values
    for name, end in (("cpl_from", "from"), ("cpl_to", "to")):
        branches[name] = np.where(branches[end] < np.uint64(_MAX_LOW), 3, 0)
    task = np.array(columns[6], np.uint32)
    unknown = np.flatnonzero(branches["class"] == _UNKNOWN)
    if len(unknown):
        ours = branches[unknown]
        branches["class"][unknown] = filler.classes(
            ours["from"], ours["to"], index, task[unknown]
        )
    return Part(branches, task, np.array(columns[7], np.uint32))


def _events(path: str) -> tuple[tuple[Module, ...], tuple[Task, ...], tuple[str, ...]]:
    """Mappings and task names among the lines, and the columns that some line fills."""
    modules: dict[Module, None] = {}
    tasks: dict[int, Task] = {}
    measured: set[str] = set()
    with Lines(path) as lines:
        while block := lines.block(_BLOCK):
            for i, line in enumerate(block):
                if b"PERF_RECORD_" not in line:
                    measured.update(_measured(line))
                    continue
                record = parse_record(line)
                if record is None:
                    number = lines.number - len(block) + i + 1
                    raise TraceError(path, f"line {number}: is no event as perf prints it")
                if isinstance(record, Mmap):
                    modules[Module(
                        record.path, record.start, record.length, record.file_offset,
                        record.build_id.hex(), None if record.pid < 0 else record.pid,
                    )] = None
                elif isinstance(record, Comm):
                    tasks[record.tid] = Task(record.tid, record.pid, record.name)
    filled = tuple(name for name in COLUMNS if name in measured)
    return tuple(modules), tuple(tasks.values()), filled


def _measured(line: bytes) -> Iterator[str]:
    """Columns that a line of a branch fills."""
    arrow = _ARROW.search(line) if _HINT.search(line) else None
    source = _last_source(line[:arrow.start()]) if arrow else None
    if arrow is None or source is None:
        return
    if _IPC.search(line, arrow.end()):
        yield from ("cycles", "instructions")
    if b"x" in source[1] or _class_of(source[0])[1]:
        yield "flags"


def _is_itrace(head: Head) -> bool:
    # One byte is found much quicker than two.
    if b"\0" in head.data[:4096] or b"=" not in head.data or b"=>" not in head.data:
        return False
    for line in head.lines():
        arrow = _ARROW.search(line)
        if arrow and _last_source(line[:arrow.start()]):
            return True
    return False


ITRACE = Format(
    "itrace", "text of perf script --itrace=b (Intel PT, BTS)", "trace", _is_itrace, Itrace
)
