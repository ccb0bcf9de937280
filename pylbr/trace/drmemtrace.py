"""DynamoRIO drmemtrace files: .zip, .gz and plain.

Records of 12 bytes: type, size, address.  The target of a branch is the address of the
thread's next instruction.  Such a trace is of user space only: what the kernel did between
a signal and its handler is one branch of class INTERRUPT, from where the program was
interrupted to the handler, and the way back one of class IRET.

Source: DynamoRIO's documentation of the trace format ("Trace Format", "Other Records") and
its ``trace_type_t`` and ``trace_marker_type_t``.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.errors import TraceError
from pylbr.files.format import Format, Head, Options
from pylbr.files.source import ByteSource
from pylbr.trace.metadata import Metadata
from pylbr.trace.trace import Part, StreamTrace

__all__ = ["DRMEMTRACE", "Drmemtrace"]

RECORD: Final = np.dtype([("type", "<u2"), ("size", "<u2"), ("address", "<u8")])
_BLOCK: Final = 1 << 16

# Record types.
_INSTR, _THREAD, _PID, _HEADER, _MARKER, _LAST_TYPE = 10, 22, 24, 25, 28, 63
_DIRECT_JUMP, _INDIRECT_JUMP, _CONDITIONAL, _CALL, _INDIRECT_CALL, _RETURN = range(11, 17)
_SYSENTER, _TAKEN, _UNTAKEN = 31, 48, 49
# Marker types, which stand in the size field, and bits of the file type's value.
_KERNEL_EVENT, _KERNEL_XFER, _CPU_ID, _FILE_TYPE, _VERSION = 0, 1, 3, 9, 12
_FILTERED: Final = 0x01 | 0x80
_ARM: Final = 0x08 | 0x10
_KERNEL: Final = 0x1000  # system calls are traced into the kernel
_KERNEL_HALF: Final = 1 << 63
_VSYSCALL_PAGE: Final = 0xFFFFFFFFFF600  # user code in the kernel's half
_IN_KERNEL: Final = (
    "holds the kernel's side of system calls, whose privilege levels are not read; record it "
    "without -enable_kernel_tracing"
)
#: Versions of the format that have been seen; 2 is the first with the records used here.
_VERSIONS: Final = range(2, 16)

_PLAIN: Final = 255
_CLASS_OF_TYPE: Final = {
    _DIRECT_JUMP: BranchClass.NEAR_REL_JMP, _INDIRECT_JUMP: BranchClass.NEAR_IND_JMP,
    _CONDITIONAL: BranchClass.COND, _CALL: BranchClass.NEAR_REL_CALL,
    _INDIRECT_CALL: BranchClass.NEAR_IND_CALL, _RETURN: BranchClass.NEAR_RET,
    _TAKEN: BranchClass.COND, _UNTAKEN: BranchClass.NOT_TAKEN,
}
_CLASSES: Final = np.full(_LAST_TYPE + 1, _PLAIN, np.uint8)
for _type, _class in _CLASS_OF_TYPE.items():
    _CLASSES[_type] = _class
_IS_INSTRUCTION: Final = np.isin(
    np.arange(_LAST_TYPE + 1), [_INSTR, _SYSENTER, *_CLASS_OF_TYPE]
)


@dataclass(slots=True)
class _Flow:
    """Instructions and kernel transfers of one thread: one array element each."""

    row: np.ndarray  # index in the block
    pc: np.ndarray
    length: np.ndarray
    kind: np.ndarray  # BranchClass or _PLAIN
    conditional: np.ndarray  # whether the next address decides if it was taken
    marker: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, records: np.ndarray) -> _Flow:
        kinds, marker = records["type"], records["type"] == _MARKER
        kind = _CLASSES[kinds]
        kind[marker & (records["size"] == _KERNEL_EVENT)] = BranchClass.INTERRUPT
        kind[marker & (records["size"] == _KERNEL_XFER)] = BranchClass.IRET
        length = np.where(marker, 0, records["size"]).astype(np.uint64)
        return cls(rows, records["address"], length, kind, kinds == _CONDITIONAL, marker)

    def joined(self, later: _Flow) -> _Flow:
        return _Flow(*(np.concatenate([getattr(self, name), getattr(later, name)])
                       for name in self.__slots__))

    def last(self) -> _Flow:
        return _Flow(*(getattr(self, name)[-1:] for name in self.__slots__))


class _Converter:
    """Turns blocks of records into branches; remembers each thread's last instruction."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = self._cpu = 0
        self._pending: dict[int, _Flow] = {}
        self._since: dict[int, int] = {}

    def block(self, records: np.ndarray, offset: int) -> Part:
        """Branches that this block completes, in its order."""
        self._check(records, offset)
        kinds = records["type"]
        marker = (kinds == _MARKER) & (records["size"] <= _KERNEL_XFER)
        rows = np.flatnonzero(_IS_INSTRUCTION[kinds] | marker)
        threads = self._filled(kinds == _THREAD, records["address"], "_thread")[rows]
        cpus = self._filled(
            (kinds == _MARKER) & (records["size"] == _CPU_ID), records["address"], "_cpu"
        )
        parts = []
        for thread in np.unique(threads).tolist():
            mine = rows[threads == thread]
            flow = _Flow.of(mine, records[mine])
            if thread in self._pending:
                flow = self._pending[thread].joined(flow)
            parts.append(self._branches(thread, flow))
            flow = flow.last()
            flow.row = np.zeros(1, np.int64)
            self._pending[thread] = flow
        if not parts:
            return Part(np.empty(0, BRANCH_DTYPE), np.empty(0, np.uint32), np.empty(0, np.uint32))
        order = np.argsort(np.concatenate([row for row, _, _ in parts]), kind="stable")
        row = np.concatenate([row for row, _, _ in parts])[order]
        branches = np.concatenate([branches for _, branches, _ in parts])[order]
        task = np.concatenate([task for _, _, task in parts])[order]
        return Part(branches, task, cpus[row])

    def _check(self, records: np.ndarray, offset: int) -> None:
        kinds = records["type"]
        if kinds.max(initial=0) > _LAST_TYPE:
            i = int(np.argmax(kinds > _LAST_TYPE))
            raise TraceError(
                self._path, f"a record of unknown type {int(kinds[i])}; the file is damaged or of "
                "a newer version", offset + i * RECORD.itemsize,
            )
        address = records["address"]
        kernel = _IS_INSTRUCTION[kinds] & (address >= np.uint64(_KERNEL_HALF)) & (
            address >> np.uint64(12) != np.uint64(_VSYSCALL_PAGE))
        if kernel.any():
            at = offset + int(np.argmax(kernel)) * RECORD.itemsize
            raise TraceError(self._path, _IN_KERNEL, at)
        markers = records[kinds == _MARKER]
        for version in markers["address"][markers["size"] == _VERSION].tolist():
            if version not in _VERSIONS:
                raise TraceError(
                    self._path, f"is of version {version}; {_VERSIONS[0]} to {_VERSIONS[-1]} are "
                    "read", offset,
                )
        for bits in markers["address"][markers["size"] == _FILE_TYPE].tolist():
            if bits & _ARM:
                raise TraceError(self._path, "is of an Arm program, which has no LBR", offset)
            if bits & _KERNEL:
                raise TraceError(self._path, _IN_KERNEL, offset)
            if bits & _FILTERED:
                raise TraceError(
                    self._path, "was filtered while it was recorded: instructions are missing; "
                    "record it without -L0_filter", offset,
                )

    def _filled(self, mask: np.ndarray, values: np.ndarray, state: str) -> np.ndarray:
        """The value in force at each record, as the masked records set it."""
        last = np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1))
        numbers = values.astype(np.uint32)
        filled = np.where(last >= 0, numbers[last], np.uint32(getattr(self, state)))
        setattr(self, state, int(filled[-1]))
        return filled

    def _branches(
        self, thread: int, flow: _Flow
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, branches and thread of all but the last element of a flow."""
        pc, target, fall = flow.pc[:-1], flow.pc[1:], flow.pc[:-1] + flow.length[:-1]
        kind, source = flow.kind[:-1].copy(), pc.copy()
        kind[flow.conditional[:-1] & (target == fall)] = BranchClass.NOT_TAKEN
        kind[(kind == BranchClass.NEAR_REL_CALL) & (target == fall)] = BranchClass.ZERO_CALL
        # No branch, yet the next instruction is elsewhere: a transfer without a marker.
        gap = (kind == _PLAIN) & (target != fall) & ~flow.marker[1:]
        kind[gap], source[gap] = BranchClass.INTERRUPT, fall[gap]
        taken = np.flatnonzero(kind != _PLAIN)
        branches = np.zeros(len(taken), BRANCH_DTYPE)
        branches["from"], branches["to"] = source[taken], target[taken]
        branches["class"] = kind[taken]
        branches["cpl_from"] = branches["cpl_to"] = 3
        # Instructions since the previous branch, the branch's own included.
        counts = np.cumsum(~flow.marker[:-1])[taken]
        before = np.concatenate([[0], counts[:-1]]) if len(taken) else counts
        branches["instructions"] = counts - before
        carried = self._since.get(thread, 0)
        done = int(counts[-1]) if len(taken) else 0
        if len(taken):
            branches["instructions"][0] += carried
            carried = 0
        self._since[thread] = carried + int(np.count_nonzero(~flow.marker[:-1])) - done
        return flow.row[:-1][taken], branches, np.full(len(taken), thread, np.uint32)


class Drmemtrace(StreamTrace):
    """A drmemtrace file.

    Raises
    ------
    TraceError
        Damaged, cut off, filtered, or of an Arm program.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        options = options or Options()
        metadata = Metadata(
            modules=tuple(options.modules),
            provenance={"source": os.fspath(path), "format": "drmemtrace"},
        )
        columns = ("from", "to", "class", "instructions", "cpl_from", "cpl_to", "task", "cpu")
        super().__init__(path, metadata, columns, self._read)

    def _read(self) -> Iterator[Part]:
        converter, offset, rest = _Converter(self.path), 0, b""
        for data in _content(self.path):
            data = rest + data
            whole = len(data) // RECORD.itemsize * RECORD.itemsize
            records = np.frombuffer(data[:whole], RECORD)
            if offset == 0 and whole and records["type"][0] != _HEADER:
                raise TraceError(self.path, "does not begin with a header record", 0)
            if whole:
                yield converter.block(records, offset)
            offset, rest = offset + whole, data[whole:]
        if rest:
            raise TraceError(self.path, "is cut off in the middle of a record", offset)
        if offset == 0:
            raise TraceError(self.path, "holds no records", 0)


def _content(path: str) -> Iterator[bytes]:
    """The bytes of all chunks, in pieces."""
    size = _BLOCK * RECORD.itemsize
    if not zipfile.is_zipfile(path):
        with ByteSource(path) as source:
            while data := source.read(size):
                yield data
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if n.startswith("chunk.")):
                with archive.open(name) as member:
                    while data := member.read(size):
                        yield data
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
            OSError, ValueError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(path, f"the zip file is damaged: {error}", 0) from error


def _is_drmemtrace(head: Head) -> bool:
    if head.raw.startswith(b"PK\x03\x04"):
        return b"chunk." in head.raw[:64]
    if len(head.data) < 3 * RECORD.itemsize:
        return False
    first = np.frombuffer(head.data[:3 * RECORD.itemsize], RECORD)
    return bool(
        first["type"][0] == _HEADER and first["size"][0] == 0 and first["address"][0] < 256
        and first["type"][1] in (_MARKER, _THREAD) and first["type"][2] in (_MARKER, _THREAD, _PID)
    )


DRMEMTRACE = Format(
    "drmemtrace", "DynamoRIO memory and instruction trace", "trace", _is_drmemtrace, Drmemtrace
)
