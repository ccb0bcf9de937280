"""Traces of the Championship Branch Prediction 2025, mostly inside gzip.

They are of Arm programs, with four bytes per instruction, so that calls to the next
instruction and gaps can be distinguished.

Source: the trace reader that the championship gave out (``lib/trace_reader.h``); layout in
`pylbr.trace.cbp.parse`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.errors import TraceError
from pylbr.files.format import Format, Head, Options
from pylbr.files.source import ByteSource
from pylbr.trace.metadata import Metadata
from pylbr.trace.trace import Part, StreamTrace

__all__ = ["CBP", "Cbp", "parse"]

_READ: Final = 1 << 18
_HEAD: Final = 1 << 15
#: The longest instruction: a store with 255 registers in and 255 vectors out.
_LONGEST: Final = 9 + 11 + 1 + 255 + 1 + 255 + 255 * 16
_LENGTH: Final = 4  # of an Arm instruction
_LOAD, _STORE, _LAST_CLASS = 1, 2, 11
_CLASSES: Final = {
    3: BranchClass.COND, 4: BranchClass.NEAR_REL_JMP, 5: BranchClass.NEAR_IND_JMP,
    9: BranchClass.NEAR_REL_CALL, 10: BranchClass.NEAR_IND_CALL, 11: BranchClass.NEAR_RET,
}
_VECTORS: Final = range(32, 64)
_SIZES: Final = bytes(16 if register in _VECTORS else 8 for register in range(256))


class _Malformed(Exception):
    """Bytes that are no instruction: (offset in the block, what)."""


def parse(data: bytes, final: bool) -> tuple[list[tuple[int, int, int, int]], int, int]:
    """The branches among the instructions in `data`.

    An instruction: address (8), class (1); a load or store: address (8), size (1), base
    update (1), and a store one byte more; a branch: taken (1), if so target (8); number of
    registers read (1) and their numbers; number written (1), their numbers, and their values,
    16 bytes for the vectors 32 to 63 and 8 for others.

    Returns
    -------
    tuple
        (from, to, class, instructions up to it) of each branch, bytes used, instructions
        after the last branch.
    """
    found, at, since = [], 0, 0
    limit = len(data) if final else len(data) - _LONGEST
    while at < limit:
        try:
            pc, kind = struct.unpack_from("<QB", data, at)
            here = at + 9
            if kind > _LAST_CLASS:
                raise _Malformed(at + 8, f"an instruction of class {kind}")
            if kind in (_LOAD, _STORE):
                here += 10 + (kind == _STORE)
            target = pc + _LENGTH
            taken = 0
            if kind in _CLASSES:
                taken = data[here]
                here += 1
                if taken > 1:
                    raise _Malformed(here - 1, "a branch mark that is neither 0 nor 1")
                if taken:
                    target = struct.unpack_from("<Q", data, here)[0]
                    here += 8
            here += 1 + data[here]
            count = data[here]
            registers = data[here + 1:here + 1 + count]
            here += 1 + count + sum(_SIZES[register] for register in registers)
            if here > len(data):
                raise _Malformed(at, "is cut off in the middle of an instruction")
        except (struct.error, IndexError):
            raise _Malformed(at, "is cut off in the middle of an instruction") from None
        at, since = here, since + 1
        if kind in _CLASSES:
            branch = _CLASSES[kind]
            if not taken:
                branch = BranchClass.NOT_TAKEN
            elif branch == BranchClass.NEAR_REL_CALL and target == pc + _LENGTH:
                branch = BranchClass.ZERO_CALL
            found.append((pc, target, int(branch), since))
            since = 0
    return found, at, since


class Cbp(StreamTrace):
    """A CBP-2025 trace.

    Raises
    ------
    TraceError
        Damaged or cut off.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        provenance = {"source": os.fspath(path), "format": "cbp2025", "architecture": "aarch64"}
        columns = ("from", "to", "class", "instructions")
        super().__init__(path, Metadata(provenance=provenance), columns, self._read)

    def _read(self) -> Iterator[Part]:
        rest, since, offset = b"", 0, 0
        with ByteSource(self.path) as source:
            while True:
                fresh = source.read(_READ)
                data = rest + fresh
                try:
                    found, used, after = parse(data, not fresh)
                except _Malformed as error:
                    at, what = error.args
                    raise TraceError(self.path, what, offset + at) from None
                branches = np.zeros(len(found), BRANCH_DTYPE)
                if found:
                    for name, values in zip(
                        ("from", "to", "class", "instructions"), zip(*found, strict=True),
                        strict=True,
                    ):
                        branches[name] = values
                    branches["instructions"][0] += since
                    since = 0
                since, offset, rest = since + after, offset + used, data[used:]
                yield Part(branches)
                if not fresh:
                    return


def _is_cbp(head: Head) -> bool:
    """Instructions that follow each other as their branches require."""
    data = head.data[:_HEAD]
    try:
        found, _, _ = parse(data, final=len(head.data) <= _HEAD)
    except _Malformed:
        return False
    steps = [after[0] - before[1] for before, after in zip(found, found[1:], strict=False)]
    return bool(found) and all(
        0 <= step < 1 << 16 and step % _LENGTH == 0 for step in steps
    )


CBP = Format("cbp2025", "trace of the 2025 branch prediction championship", "trace", _is_cbp, Cbp)
