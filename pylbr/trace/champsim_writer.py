"""Writing ChampSim traces, as far as the branches of one thread tell what executed.

Known are the branches, where they lead, and how many instructions lie between them; the addresses
of those are spread evenly over the bytes that they take, and what they read, write, load and store
is missing.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterator
from typing import IO, Final, cast

import numpy as np

from lbrcore import BranchClass
from pylbr.errors import TraceError
from pylbr.files.format import WriteOptions
from pylbr.files.output import AtomicFile
from pylbr.trace.champsim_layout import FLAGS, INSTRUCTION_POINTER, RECORD, STACK_POINTER
from pylbr.trace.trace import Trace

__all__ = ["SUFFIXES", "write_champsim"]

SUFFIXES: Final = (".champsimtrace.xz", ".champsimtrace.gz", ".champsimtrace")
#: A register that is none of those that distinguish branches.
_OTHER: Final = 1
_SP, _IP, _FL = STACK_POINTER, INSTRUCTION_POINTER, FLAGS
#: Class -> registers read and written, as ChampSim's tracers mark it.
_REGISTERS: Final = {
    BranchClass.COND: ((_IP, _FL), (_IP,)), BranchClass.NOT_TAKEN: ((_IP, _FL), (_IP,)),
    BranchClass.NEAR_IND_JMP: ((_OTHER,), (_IP,)), BranchClass.NEAR_REL_JMP: ((_IP,), (_IP,)),
    BranchClass.NEAR_IND_CALL: ((_IP, _SP, _OTHER), (_IP, _SP)),
    BranchClass.NEAR_REL_CALL: ((_IP, _SP), (_IP, _SP)),
    BranchClass.ZERO_CALL: ((_IP, _SP), (_IP, _SP)), BranchClass.NEAR_RET: ((_SP,), (_IP, _SP)),
}
#: All that goes through the kernel: no rule of ChampSim fits it.
_FAR: Final = ((_SP, _FL), (_IP,))
_ROWS: Final = 1 << 14
#: Instructions between two branches that are believed: more are a mistake of the source.
_MOST: Final = 1 << 16


def _marks() -> np.ndarray:
    """(16,) RECORD: a branch of each class, without its address."""
    marks = np.zeros(16, RECORD)
    marks["is_branch"] = marks["taken"] = 1
    for kind in BranchClass:
        read, written = _REGISTERS.get(kind, _FAR)
        marks["read"][kind, :len(read)] = read
        marks["written"][kind, :len(written)] = written
    marks["taken"][BranchClass.NOT_TAKEN] = 0
    return marks


def records_of(rows: np.ndarray, arrived: int | None, marks: np.ndarray) -> np.ndarray:
    """The instructions of some branches, up to the last of these.

    Parameters
    ----------
    rows : (n,) array of BRANCH_DTYPE
    arrived : int, optional
        Where the branch before led to; None at the beginning.
    marks : (16,) array of RECORD

    Returns
    -------
    (m,) array of RECORD
    """
    begin = np.empty(len(rows), np.uint64)
    begin[1:] = rows["to"][:-1]
    begin[0] = rows["from"][0] if arrived is None else arrived
    counts = np.minimum(np.maximum(rows["instructions"], 1), _MOST).astype(np.int64)
    counts = np.where(begin == rows["from"], 1, np.maximum(counts, 2))
    ends = np.cumsum(counts)
    which = np.repeat(np.arange(len(rows)), counts)
    place = np.arange(ends[-1]) - (ends - counts)[which]
    last = np.zeros(len(which), bool)
    last[ends - 1] = True
    result = np.zeros(len(which), RECORD)
    # Where the code does not lead straight on, all stand where it arrived.
    distance = np.where(rows["from"] >= begin, rows["from"] - begin, 0)
    steps = distance[which] * place.astype(np.uint64) // np.maximum(counts[which] - 1, 1).astype(
        np.uint64)
    result["ip"] = begin[which] + steps
    result[last] = marks[rows["class"]]
    result["ip"][last] = rows["from"]
    return result


def _blocks(source: Trace) -> Iterator[np.ndarray]:
    """Records of the whole trace, the one where the last branch leads to included."""
    marks, arrived, task = _marks(), None, None
    for chunk in source.chunks():
        if chunk.task is not None and len(chunk):
            task = int(chunk.task[0]) if task is None else task
            if (np.asarray(chunk.task) != task).any():
                raise TraceError(source.path, "has several threads; a ChampSim trace is of one")
        rows = chunk.branches
        for first in range(0, len(rows), _ROWS):
            part = rows[first:first + _ROWS]
            yield records_of(part, arrived, marks)
            arrived = int(part["to"][-1])
    if arrived is not None:
        end = np.zeros(1, RECORD)
        end["ip"] = arrived
        yield end


def write_champsim(source: Trace, path: str, options: WriteOptions) -> int:
    """Write a trace of one thread for ChampSim; returns the branches.

    Raises
    ------
    TraceError
        It has several threads, no branches, or no count of instructions; nothing is left then.
    """
    if "instructions" not in source.columns:
        raise TraceError(source.path, "has no column instructions, which ChampSim's form needs")
    count = 0
    with AtomicFile(path) as output:
        file = _packed(path, output.file)
        for block in _blocks(source):
            file.write(block.tobytes())
            branches = int(block["is_branch"].sum())
            count += branches
            options.update(branches)
        if file is not output.file:
            file.close()
        if not count:
            raise TraceError(source.path, "holds no branches: nothing to convert")
    options.note(f"{path}: instructions between branches have made-up addresses and no registers; "
                 "loads and stores are missing")
    return count


def _packed(path: str, file: IO[bytes]) -> IO[bytes]:
    """The file, or what compresses into it."""
    if path.lower().endswith(".xz"):
        return cast("IO[bytes]", lzma.LZMAFile(file, "wb", preset=1))
    if path.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.GzipFile("", "wb", 6, file, 0))
    return file
