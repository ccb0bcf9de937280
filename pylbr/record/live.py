"""A table of the hottest branches that refreshes while the program runs."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.text import Text

from pylbr.perf.batch import SampleBatch
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap
from pylbr.profile._aggregate import PairTable
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.symbols import Symbols
from pylbr.record.output import PerfDataOutput
from pylbr.tables import Table, terminal

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
        console = terminal(self._stream)
        self._live = console and Live(console=console, auto_refresh=False, redirect_stdout=False,
                                      redirect_stderr=False)
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
        if self._live and now - self._drawn_at >= _SECONDS:
            self._drawn_at = now
            self._draw()

    def table(self) -> tuple[str, Table]:
        """A line of totals, and the hottest branches."""
        edges = self._edges.to_array()
        total = int(edges["count"].sum()) or 1
        seconds = time.monotonic() - self._started
        rows = []
        for row in edges[np.argsort(edges["count"])[::-1][:_ROWS]]:
            ends = (str(self._symbols.place(int(row["pid"]), int(row[name])))
                    for name in ("first", "last"))
            rows.append((f"{row['count'] / total:.2%}", *ends))
        head = f"{self.count:,} samples, {total:,} branches in them, {seconds:.0f} s"
        return head, Table(rows, ("share", "from", "to"), frozenset({0}), names=True)

    def _draw(self) -> None:
        head, table = self.table()
        if self._live:
            self._live.start()
            self._live.update(Group(Text(head), table), refresh=True)
        else:
            print(head, table, sep="\n", file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            if kind is None:
                self._draw()
        finally:
            if self._live:
                self._live.stop()
        self._file.__exit__(kind, error, where)
