"""A table of the hottest branches that refreshes while the program runs."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

import numpy as np

from pylbr.perf.batch import SampleBatch
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap
from pylbr.profile._aggregate import PairTable
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.symbols import Symbols
from pylbr.record.output import PerfDataOutput

__all__ = ["LiveOutput"]

_ROWS: Final = 15
_SECONDS: Final = 1.0


class LiveOutput:
    """Samples, counted as they come and written to the file of another output as well.

    Parameters
    ----------
    file : PerfDataOutput
    filter_ : int
        `BranchSample` bits.
    stream : text file, optional
        Where the table goes; default standard error.  On a terminal it is drawn in place; else
        it is printed once, at the end.
    """

    def __init__(self, file: PerfDataOutput, filter_: int, stream: TextIO | None = None) -> None:
        self._file, self._filter, self._stream = file, filter_, stream or sys.stderr
        self._edges, self._spaces = PairTable(), AddressSpaces()
        self._symbols = Symbols(self._spaces)
        self._started = self._drawn_at = time.monotonic()
        self._lines = 0
        self.remarks = file.remarks

    @property
    def count(self) -> int:
        """Samples written."""
        return self._file.count

    def record(self, record: Mmap | Comm | Fork | Exit | Lost) -> None:
        """See `Sink`."""
        if not isinstance(record, Exit | Lost):  # its code keeps its names until the end
            self._spaces.add(record)
        self._file.record(record)

    def samples(self, batch: SampleBatch) -> None:
        """See `Sink`."""
        self._edges.add_edges(self._spaces.keyed(perf_samples(batch, self._filter)))
        self._file.samples(batch)

    def expect(self, count: int, kept: int, ended: bool) -> None:
        """See `Sink`; samples only."""

    def branches(self, task: int, branches: np.ndarray) -> bool:
        """See `Sink`; samples only."""
        return self._file.branches(task, branches)

    def refresh(self) -> None:
        """Redraw if the interval has passed and the stream is a terminal."""
        now = time.monotonic()
        if self._stream.isatty() and now - self._drawn_at >= _SECONDS:
            self._drawn_at = now
            self._draw()

    def table(self) -> list[str]:
        """The lines of the table."""
        edges = self._edges.to_array()
        total = int(edges["count"].sum()) or 1
        seconds = time.monotonic() - self._started
        lines = [f"{self.count:,} samples, {total:,} branches in them, {seconds:.0f} s",
                 f"{'share':>7}  {'from':40}  to"]
        for row in edges[np.argsort(edges["count"])[::-1][:_ROWS]]:
            pid = int(row["pid"])
            source, target = (
                str(self._symbols.place(pid, int(row[name]))) for name in ("first", "last")
            )
            lines.append(f"{row['count'] / total:7.2%}  {source[-40:]:40}  {target[-40:]}")
        return lines

    def _draw(self) -> None:
        lines = self.table()
        if self._lines and self._stream.isatty():
            self._stream.write(f"\x1b[{self._lines}F\x1b[J")
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()
        self._lines = len(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        if kind is None:
            self._draw()
        self._file.__exit__(kind, error, where)
