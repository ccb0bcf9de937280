"""ChampSim traces: 64 bytes per instruction, mostly inside xz or gzip.

The class of a branch follows from the registers that it reads and writes; the target is
the address of the next instruction.

Source: ChampSim's ``inc/trace_instruction.h`` and ``inc/instruction.h``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.errors import TraceError
from pylbr.files.format import Format, Head, Options
from pylbr.files.source import ByteSource
from pylbr.trace.champsim_layout import FLAGS, INSTRUCTION_POINTER, RECORD, STACK_POINTER
from pylbr.trace.champsim_writer import SUFFIXES, write_champsim
from pylbr.trace.metadata import Metadata
from pylbr.trace.trace import Part, StreamTrace

__all__ = ["CHAMPSIM", "ChampSim"]

_BLOCK: Final = 1 << 15
#: The longest x86 instruction; between two instructions in a row there is no more.
_LONGEST: Final = 15


def classes(records: np.ndarray) -> np.ndarray:
    """(n,) uint8 `BranchClass` of branch instructions, as if all were taken."""
    read, written = records["read"], records["written"]

    def has(registers: np.ndarray, number: int) -> np.ndarray:
        return (registers == number).any(axis=1)

    reads_sp, writes_sp = has(read, STACK_POINTER), has(written, STACK_POINTER)
    reads_ip, reads_flags = has(read, INSTRUCTION_POINTER), has(read, FLAGS)
    known = (read == STACK_POINTER) | (read == FLAGS) | (read == INSTRUCTION_POINTER)
    reads_other = ((read != 0) & ~known).any(axis=1)
    stack, plain = reads_sp & writes_sp, ~reads_sp & ~reads_flags
    rules = [
        (stack & ~reads_ip, BranchClass.NEAR_RET),
        (stack & ~reads_flags & reads_other, BranchClass.NEAR_IND_CALL),
        (stack & ~reads_flags, BranchClass.NEAR_REL_CALL),
        (~reads_sp & ~writes_sp & reads_ip & (reads_flags | reads_other), BranchClass.COND),
        (plain & reads_other, BranchClass.NEAR_IND_JMP),
        (plain, BranchClass.NEAR_REL_JMP),
    ]
    return np.select(
        [mask for mask, _ in rules], [np.uint8(kind) for _, kind in rules],
        np.uint8(BranchClass.FAR_BRANCH),
    )


class ChampSim(StreamTrace):
    """A ChampSim trace.

    Raises
    ------
    TraceError
        Damaged or cut off.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        options = options or Options()
        metadata = Metadata(
            modules=tuple(options.modules),
            provenance={"source": os.fspath(path), "format": "champsim"},
        )
        columns = ("from", "to", "class", "instructions")
        super().__init__(path, metadata, columns, self._read)

    def _read(self) -> Iterator[Part]:
        kept = np.empty(0, RECORD)
        since = offset = 0
        with ByteSource(self.path) as source:
            while data := source.read(_BLOCK * RECORD.itemsize):
                if len(data) % RECORD.itemsize:
                    raise TraceError(
                        self.path, "is cut off in the middle of an instruction",
                        offset + len(data) // RECORD.itemsize * RECORD.itemsize,
                    )
                records = np.frombuffer(data, RECORD)
                self._check(records, offset)
                offset += len(data)
                records = np.concatenate([kept, records])
                kept = records[-1:]
                part, since = _branches(records, since)
                yield part

    def _check(self, records: np.ndarray, offset: int) -> None:
        bad = (records["is_branch"] > 1) | (records["taken"] > records["is_branch"])
        if bad.any():
            at = offset + int(np.argmax(bad)) * RECORD.itemsize
            raise TraceError(self.path, "a branch mark that is neither 0 nor 1", at)


def _branches(records: np.ndarray, since: int) -> tuple[Part, int]:
    """Branches of all but the last record; instructions after the last of them."""
    where = np.flatnonzero(records["is_branch"][:-1])
    source = records[where]
    kinds = classes(source)
    # ChampSim takes the mark for these two; all others are taken by their kind.
    marked = (kinds == BranchClass.COND) | (kinds == BranchClass.FAR_BRANCH)
    kinds[marked & (source["taken"] == 0)] = BranchClass.NOT_TAKEN
    branches = np.zeros(len(where), BRANCH_DTYPE)
    branches["from"], branches["to"] = source["ip"], records["ip"][where + 1]
    branches["class"] = kinds
    counts = np.diff(where, prepend=-1)
    if len(where):
        counts[0] += since
        since = len(records) - 2 - int(where[-1])
    else:
        since += len(records) - 1
    branches["instructions"] = counts
    return Part(branches), since


def _is_champsim(head: Head) -> bool:
    records = np.frombuffer(head.data[:len(head.data) // 64 * 64][:1 << 16], RECORD)
    if len(records) < 2 or not len(head.raw):
        return False
    marks = (records["is_branch"] <= 1) & (records["taken"] <= records["is_branch"])
    plain = records["is_branch"][:-1] == 0
    steps = np.diff(records["ip"])[plain]
    return bool(
        marks.all() and records["ip"].all()
        and np.count_nonzero(steps <= _LONGEST) >= 0.9 * len(steps)
    )


CHAMPSIM = Format(
    "champsim", "ChampSim instruction trace (.xz, .gz)", "trace", _is_champsim, ChampSim,
    write_champsim, SUFFIXES,
)
