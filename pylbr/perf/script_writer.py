"""Text as ``perf script`` prints it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from pylbr.errors import TraceError
from pylbr.files.output import AtomicFile
from pylbr.perf._script_writer import format_stacks
from pylbr.perf.abi import SampleType
from pylbr.perf.event_names import event_name
from pylbr.perf.stacks import Comm, Exit, Fork, Mmap, Record, Samples, Stacks, StacksMetadata
from pylbr.printable import printable

__all__ = ["FIELDS", "FORMS", "PerfScript", "measured_fields", "write_perf_script"]

#: What ``-F`` may name, in the order in which perf prints it.
FIELDS = ("comm", "pid", "tid", "cpu", "time", "period", "event", "ip", "brstack")
#: Versions of perf whose text differs: 6.12 ends an entry with how it was speculated.
FORMS = ("6.1", "6.12")
_SAMPLE_TYPES = {
    "comm": SampleType.TID, "pid": SampleType.TID, "tid": SampleType.TID, "cpu": SampleType.CPU,
    "time": SampleType.TIME, "period": SampleType.PERIOD, "ip": SampleType.IP,
}
_NSEC_PER_SEC = 1_000_000_000
#: Frames from here on are marks (PERF_CONTEXT_*), which perf does not print.
_CONTEXT_MAX = 2**64 - 4095


def measured_fields(metadata: StacksMetadata) -> list[str]:
    """Those of `FIELDS` that the samples have: what was not recorded is not printed as zero."""
    kind = 0
    for event in metadata.events:
        kind |= event.sample_type
    named = any(event.name or event.config for event in metadata.events)
    return [
        name for name in FIELDS
        if kind & _SAMPLE_TYPES.get(name, kind) and (name != "event" or named)
    ]


class PerfScript:
    """Formatter of a stream of stacks.

    Parameters
    ----------
    metadata : StacksMetadata
    fields : sequence of str
        As after ``perf script -F``; of `FIELDS`.  ``ip,brstack`` is what BOLT and
        llvm-profgen ask perf for.
    form : str
        One of `FORMS`.
    mmap_events, task_events : bool
        As ``--show-mmap-events`` and ``--show-task-events``.

    Raises
    ------
    ValueError
        A field or form that does not exist.

    Notes
    -----
    Records are printed in the order of the stream; perf sorts them by time first.
    """

    def __init__(
        self, metadata: StacksMetadata, fields: Sequence[str] = ("ip", "brstack"),
        form: str = "6.1", mmap_events: bool = False, task_events: bool = False,
    ) -> None:  # fmt: skip
        for name in fields:
            if name not in FIELDS:
                raise ValueError(f"field {name!r} is none of {', '.join(FIELDS)}")
        if form not in FORMS:
            raise ValueError(f"form {form!r} is none of {', '.join(FORMS)}")
        self._fields = frozenset(fields)
        self._spec = form != "6.1"
        self._mmap_events, self._task_events = mmap_events, task_events
        names = [printable(event_name(event), keep_bytes=True) for event in metadata.events]
        width = max(map(len, names), default=0)
        self._names = [f"{name:>{width}}: ".encode() for name in names]
        self._comms: dict[int, str] = {0: "swapper"}
        self._head = self._fields - {"ip", "brstack"}

    def text(self, record: Record) -> bytes:
        """Lines of one record; empty for what is not shown."""
        if isinstance(record, Samples):
            chained = "ip" in self._fields and record.chain is not None
            prefixes = self._prefixes(record) if self._head or chained else None
            if prefixes is not None and chained:
                prefixes = _with_chains(prefixes, record)
            return format_stacks(
                record, prefixes, "ip" in self._fields and not chained,
                "brstack" in self._fields, self._spec,
            )
        if isinstance(record, Comm):
            name = self._comms[record.tid] = printable(record.name, keep_bytes=True)
            shown = f" exec: {name}" if record.exec_ else f": {name}"
            line = f"PERF_RECORD_COMM{shown}:{record.pid}/{record.tid}"
        elif isinstance(record, Fork | Exit):
            line = (
                f"PERF_RECORD_{type(record).__name__.upper()}"
                f"({record.pid}:{record.tid}):({record.ppid}:{record.ptid})"
            )
            if isinstance(record, Fork):
                self._comms.setdefault(record.tid, self._comms.get(record.ptid, ""))
        elif isinstance(record, Mmap):
            line = mmap_text(record)
        else:
            return b""
        if not (self._mmap_events if isinstance(record, Mmap) else self._task_events):
            return b""
        head = self._prefix(record.pid, record.tid, record.cpu, record.time)
        return f"{head}{line}\n".encode("utf-8", "surrogateescape")

    def _prefix(self, pid: int, tid: int, cpu: int, time: int) -> str:
        shown = self._fields
        text = ""
        if "comm" in shown:
            text += f"{self._comms.get(tid, f':{tid}'):>16} "
        if "pid" in shown and "tid" in shown:
            text += f"{pid:5d}/{tid:<5d} "
        elif "pid" in shown or "tid" in shown:
            text += f"{pid if 'pid' in shown else tid:5d} "
        if "cpu" in shown:
            text += f"[{cpu:03d}] "
        if "time" in shown:
            seconds, rest = divmod(time, _NSEC_PER_SEC)
            text += f"{seconds:5d}.{rest // 1000:06d}: "
        return text

    def _prefixes(self, samples: Samples) -> list[bytes]:
        tail: Callable[[int, int], bytes] = lambda period, event: (  # noqa: E731
            (f"{period:10d} ".encode() if "period" in self._fields else b"")
            + (self._names[event] if "event" in self._fields else b"")
        )
        return [
            self._prefix(pid, tid, cpu, time).encode("utf-8", "surrogateescape")
            + tail(period, event)
            for pid, tid, cpu, time, period, event in zip(
                samples.pid.tolist(), samples.tid.tolist(), samples.cpu.tolist(),
                samples.time.tolist(), samples.period.tolist(), samples.event.tolist(),
                strict=True,
            )
        ]  # fmt: skip


def _with_chains(prefixes: list[bytes], samples: Samples) -> list[bytes]:
    """Columns and below them the call chain, in place of the address; names are not padded."""
    offsets, chain = samples.chain_offsets, samples.chain
    assert offsets is not None and chain is not None
    frames = [b"\t%16x\n" % frame if frame < _CONTEXT_MAX else b"" for frame in chain.tolist()]
    return [
        prefix.lstrip(b" ") + b"\n" + b"".join(frames[first:last])
        for prefix, first, last in zip(
            prefixes, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]


def mmap_text(record: Mmap) -> str:
    """A mapping as ``--show-mmap-events`` prints an MMAP2 record."""
    bits = "".join(
        letter if record.prot & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x"))
    )
    kind = "s" if record.flags & 1 else "p"
    offset = f"{record.file_offset:#x}" if record.file_offset else "0"
    inode = f"{record.major:02x}:{record.minor:02x} {record.inode} {record.generation}"
    return (
        f"PERF_RECORD_MMAP2 {record.pid}/{record.tid}: [{record.start:#x}({record.length:#x}) "
        f"@ {offset} {inode}]: {bits}{kind} {printable(record.path, keep_bytes=True)}"
    )


def write_perf_script(
    path: str | os.PathLike[str], stacks: Stacks, *, fields: Sequence[str] = ("ip", "brstack"),
    form: str = "6.1", mmap_events: bool = True, task_events: bool = False,
) -> int:  # fmt: skip
    """Write a whole stream as text; how many samples there were.

    The defaults give what ``llvm-profgen --perfscript`` reads.

    Raises
    ------
    TraceError
        The file cannot be written; nothing is left under its name then.
    """
    count = 0
    script = PerfScript(stacks.metadata, fields, form, mmap_events, task_events)
    with AtomicFile(path) as output:
        for record in stacks:
            try:
                output.file.write(script.text(record))
            except IndexError as error:
                raise TraceError(path, "a sample names an event that is not there") from error
            count += len(record) if isinstance(record, Samples) else 0
    return count
