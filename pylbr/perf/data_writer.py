"""perf.data files in file mode, written as ``perf record`` writes them.

::

    header  attrs  ids | COMM MMAP2 FORK SAMPLE EXIT ... | feature table  feature bodies

Sources: ``tools/perf/Documentation/perf.data-file-format.txt``, ``perf_event.h``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pylbr.errors import TraceError
from pylbr.files.output import AtomicFile, Completed
from pylbr.perf._data_writer import pack_samples
from pylbr.perf.abi import PERF_MAGIC, AttrFlag, BranchSample, SampleType
from pylbr.perf.header_writer import feature_bodies
from pylbr.perf.record_writer import record_bytes
from pylbr.perf.sample_layout import NEEDED_FIELDS, SAMPLE_FIELDS, SampleLayout
from pylbr.perf.stacks import BuildId, Event, Mmap, Samples, Stacks, StacksMetadata
from pylbr.perf.stacks import Record as StreamRecord

__all__ = ["ATTR_SIZE", "PerfDataWriter", "attr_bytes", "write_perf_data"]

#: PERF_ATTR_SIZE_VER7: perf 6.1 refuses anything longer.
ATTR_SIZE = 128
_HEADER_SIZE = 104
_FILE_ATTR_SIZE = ATTR_SIZE + 16
_BUFFER_WORDS = 1 << 14  # twice the largest record; a full disk costs no more than this

_ATTR = struct.Struct("<IIQQQQQIIQQQQIiQIHHIIQ")
_RECORDING_FLAGS = (
    AttrFlag.MMAP | AttrFlag.COMM | AttrFlag.TASK | AttrFlag.SAMPLE_ID_ALL | AttrFlag.MMAP2
    | AttrFlag.COMM_EXEC
)  # fmt: skip
_KNOWN_FLAGS = sum(AttrFlag)
#: How perf names the kernel in a mapping, with the symbol that it starts at, and among build ids.
_KERNEL_MAPPING, _KERNEL_IMAGE = "[kernel.kallsyms]_text", "[kernel.kallsyms]"
_EXTRA_FIELDS = BranchSample.HW_INDEX | BranchSample.COUNTERS


def attr_bytes(event: Event) -> bytes:
    """``perf_event_attr`` of an event, `ATTR_SIZE` bytes."""
    return _ATTR.pack(
        event.type, ATTR_SIZE, event.config, event.period, event.sample_type,
        event.read_format, event.flags, 0, 0, 0, 0, event.branch_sample_type, *(0,) * 10,
    )  # fmt: skip


def _unified(events: tuple[Event, ...]) -> tuple[tuple[Event, ...], SampleLayout]:
    """The events as the file shall declare them: one layout for the samples of all."""
    if not events:
        raise ValueError("no event given: a perf.data file has at least one")
    kind = NEEDED_FIELDS
    extra = 0
    for event in events:
        kind |= SampleType(event.sample_type) & SAMPLE_FIELDS
        extra |= event.branch_sample_type & _EXTRA_FIELDS
    if len(events) > 1:
        kind |= SampleType.IDENTIFIER
    taken = {number for event in events for number in event.ids[:1]}
    spare = iter(number for number in range(1, 2 * len(events) + 1) if number not in taken)
    unified = []
    for event in events:
        ids = event.ids[:1] if event.ids and event.ids[0] in taken else (next(spare),)
        taken.discard(ids[0])
        unified.append(replace(
            event, sample_type=int(kind), read_format=0, ids=ids,
            flags=int(event.flags & _KNOWN_FLAGS | _RECORDING_FLAGS),
            branch_sample_type=int(event.branch_sample_type & ~_EXTRA_FIELDS | extra),
        ))  # fmt: skip
    ids = tuple(event.ids[0] for event in unified)
    return tuple(unified), SampleLayout(int(kind), int(extra), ids)


class PerfDataWriter(Completed):
    """One perf.data file; it appears under its name when `commit` is called.

    Attribute `directory` is where it lies until then, `samples` counts those in it.

    Parameters
    ----------
    path : path-like
    metadata : StacksMetadata
        `events` declares the file: sample_type is the union of theirs with
        `sample_layout.NEEDED_FIELDS`, as far as `sample_layout.SAMPLE_FIELDS` goes; HW_INDEX and
        COUNTERS are written if one asks for them.  Each event gets one id: its first, or a
        free one.

    Raises
    ------
    TraceError
        The file cannot be written.
    ValueError
        No event.

    Notes
    -----
    Used by one thread at a time.  In a ``with``: committed at its end, gone on an exception.
    """

    def __init__(self, path: str | os.PathLike[str], metadata: StacksMetadata) -> None:
        self.path = path
        self._events, self._layout = _unified(metadata.events)
        self._metadata = replace(metadata, events=self._events)
        self._build_ids = {build.path: build for build in metadata.build_ids}
        self._buffer = np.empty(_BUFFER_WORDS, "u8")
        self._attrs_end = _HEADER_SIZE + _FILE_ATTR_SIZE * len(self._events)
        self._data_start = self._attrs_end + 8 * len(self._events)
        self._written = self.samples = 0
        self._output = AtomicFile(path)
        self.directory = self._output.directory
        self._output.file.write(bytes(self._data_start))

    def write(self, record: StreamRecord) -> None:
        """Append samples, or the kernel's record of a mapping or task.

        Raises
        ------
        TraceError
            A sample has too many entries, an event that the file does not declare, or a
            path is too long.
        """
        try:
            if isinstance(record, Samples):
                self._write_samples(record)
                return
            if isinstance(record, Mmap) and record.build_id:
                path = record.path.replace(_KERNEL_MAPPING, _KERNEL_IMAGE)
                self._build_ids.setdefault(
                    path, BuildId(path, record.build_id, record.pid, misc=record.misc & 7))
            data = record_bytes(record, self._layout)
        except ValueError as error:
            raise TraceError(self.path, f"cannot be written: {error}") from error
        self._output.file.write(data)
        self._written += len(data)

    def _write_samples(self, samples: Samples) -> None:
        first = 0
        while first < len(samples):
            following, words = pack_samples(self._buffer, first, samples, self._layout)
            if following == first:
                raise ValueError(f"sample {first} is larger than the buffer")
            self._output.file.write(self._buffer[:words].data)
            self._written += 8 * words
            self.samples += following - first
            first = following

    def cut(self) -> None:
        """After a write has failed: forget what is not whole, so that `commit` may follow."""
        self._output.file.seek(self._data_start + self._written)
        self._output.file.truncate()

    def commit(self) -> None:
        """Write features and header; after that the file exists."""
        try:
            self._finish()
        except OSError as error:
            self._output.discard()
            raise self._output.failure(error) from error
        self._output.commit()

    def discard(self) -> None:
        """Remove what was written; a second call does nothing."""
        self._output.discard()

    def _finish(self) -> None:
        file = self._output.file
        features = feature_bodies(
            replace(self._metadata, build_ids=tuple(self._build_ids.values())),
            [attr_bytes(event) for event in self._events],
        )
        at = self._data_start + self._written + 16 * len(features)
        table = b""
        for body in features.values():
            table += struct.pack("<QQ", at, len(body))
            at += len(body)
        file.write(table + b"".join(features.values()))
        bitmap = sum(1 << feature for feature in features)
        file.seek(0)
        file.write(struct.pack(
            "<8sQQ6Q4Q", PERF_MAGIC, _HEADER_SIZE, _FILE_ATTR_SIZE,
            _HEADER_SIZE, _FILE_ATTR_SIZE * len(self._events),
            self._data_start, self._written, 0, 0, bitmap, 0, 0, 0,
        ))  # fmt: skip
        for number, event in enumerate(self._events):
            file.write(attr_bytes(event))
            file.write(struct.pack("<QQ", self._attrs_end + 8 * number, 8))
        file.write(struct.pack(f"<{len(self._events)}Q", *self._layout.ids))

    def failure(self, error: OSError) -> TraceError:
        """The error of a write, as the user shall see it."""
        return self._output.failure(error)


def write_perf_data(
    path: str | os.PathLike[str], stacks: Stacks | tuple[StacksMetadata, Iterable[StreamRecord]]
) -> int:
    """Write a whole stream; how many samples there were.

    Raises
    ------
    TraceError
        The file cannot be written; nothing is left under its name then.
    """
    metadata, records = (stacks.metadata, stacks) if isinstance(stacks, Stacks) else stacks
    count = 0
    with PerfDataWriter(path, metadata) as writer:
        for record in records:
            writer.write(record)
            count += len(record) if isinstance(record, Samples) else 0
    return count
