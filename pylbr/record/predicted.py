"""Mispredicts in samples, out of a model that sees the stretches of the program in them.

Each thread has a predictor (`lbrcore.predictor`) that goes through its stacks in their order, the
conditional branches that fell through between two entries included: they are read from the
files that the process has mapped.  What happened between two stacks it does not see.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag
from lbrcore.predictor import Predictor
from pylbr.arch.bits import INFO_MISPRED
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap, Samples
from pylbr.profile.address_space import AddressSpaces
from pylbr.record._passed import passed
from pylbr.record.engine import Sink

__all__ = ["PredictedOutput"]

#: Straight code of more bytes is no range between two branches.
_LONGEST: Final = 1 << 16
#: Ranges whose branches are remembered.
_RANGES: Final = 1 << 20
_CALLS: Final = (BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL)


class _Output(Sink, Protocol):
    remarks: list[str]

    @property
    def count(self) -> int: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None: ...  # fmt: skip


class PredictedOutput:
    """Gives samples a model's mispredicts on their way to another output.

    A branch that the thread's stacks have not shown before counts as predicted, and so does a
    return whose call is not in its stack: the model cannot do better.  Samples of an engine
    that has mispredicts pass as they are.

    Parameters
    ----------
    output : output of samples
        A `PerfDataOutput`, or one around it.
    model : str
        ``gshare`` or ``tage``.
    """

    def __init__(self, output: _Output, model: str) -> None:
        self._output, self._model = output, model
        self._spaces = AddressSpaces()
        self._predictors: dict[int, tuple[Predictor, set[int]]] = {}
        self._files: dict[str, int] = {}
        self._known: dict[tuple[int, int, int], list[int]] = {}
        self.remarks = output.remarks
        self.refresh: Callable[[], None] = getattr(output, "refresh", lambda: None)

    @property
    def count(self) -> int:
        """Samples written."""
        return self._output.count

    def record(self, record: Mmap | Comm | Fork | Exit | Lost) -> None:
        """See `Sink`."""
        if not isinstance(record, Exit | Lost):
            self._spaces.add(record)
        self._output.record(record)

    def samples(self, batch: SampleBatch) -> None:
        """See `Sink`."""
        if not batch.info_mask & INFO_MISPRED:
            batch = self._predicted(batch)
        self._output.samples(batch)

    def expect(self, count: int, kept: int, ended: bool) -> None:
        """See `Sink`; samples only."""

    def branches(self, task: int, branches: NDArray[np.void]) -> bool:
        """See `Sink`; samples only."""
        return self._output.branches(task, branches)

    def _predicted(self, batch: SampleBatch) -> SampleBatch:
        assert batch.classes is not None
        entries = batch.entries.copy()
        entries["info"] &= ~np.uint64(INFO_MISPRED)
        spaces = self._spaces.keyed(Samples.build(
            np.zeros(len(batch) + 1, np.int64), np.empty(0, BRANCH_ENTRY_DTYPE), pid=batch.pid,
            time=batch.time,
        )).pid  # fmt: skip
        for tid in np.unique(batch.tid).tolist():
            if tid not in self._predictors:
                self._predictors[tid] = Predictor(self._model), set()
            for i in np.flatnonzero(batch.tid == tid).tolist():
                places = np.arange(batch.starts[i] + batch.nr[i] - 1, batch.starts[i] - 1, -1)
                wrong = self._mark(
                    *self._predictors[tid], int(spaces[i]), entries["from"][places],
                    entries["to"][places], batch.classes[places],
                )  # fmt: skip
                entries["info"][places[wrong]] |= np.uint64(INFO_MISPRED)
        return replace(batch, entries=entries, info_mask=batch.info_mask | INFO_MISPRED)

    def _mark(
        self, predictor: Predictor, seen: set[int], space: int, source: NDArray[np.uint64],
        target: NDArray[np.uint64], classes: NDArray[np.uint8],
    ) -> NDArray[np.bool_]:  # fmt: skip
        """Which branches of a stack, oldest first, the model mispredicts."""
        rows: list[tuple[int, int, int]] = []
        taken, known = np.zeros(len(source), np.intp), np.zeros(len(source), np.bool_)
        before = 0
        ways = zip(source.tolist(), target.tolist(), classes.tolist(), strict=True)
        for i, (start, end, cls) in enumerate(ways):
            if i:
                fell_through = self._passed(space, before, start)
                rows += [(at, 0, BranchClass.NOT_TAKEN) for at in fell_through]
            taken[i], known[i] = len(rows), start in seen
            seen.add(start)
            rows.append((start, end, cls))
            before = end
        branches = np.zeros(len(rows), BRANCH_DTYPE)
        for name, column in zip(("from", "to", "class"), zip(*rows, strict=True), strict=True):
            branches[name] = column
        predictor.mark(branches)
        wrong = branches["flags"][taken] & BranchFlag.MISPRED != 0
        return wrong & known & ~_unknown_returns(classes)

    def _passed(self, space: int, start: int, end: int) -> list[int]:
        """Conditional branches that fell through on the way from `start` to `end`."""
        key = space, start, end
        if key not in self._known:
            if len(self._known) == _RANGES:
                self._known.clear()
            self._known[key] = passed(self._code(space, start, end), start)
        return self._known[key]

    def _code(self, space: int, start: int, end: int) -> bytes:
        """The code in between; empty where it is in no file, or cannot be read."""
        mapped = self._spaces.find(space, start)
        if mapped is None or not start < end <= min(mapped.end, start + _LONGEST):
            return b""
        if mapped.path not in self._files:
            try:
                self._files[mapped.path] = os.open(
                    mapped.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
                )
            except OSError:
                self._files[mapped.path] = -1
        file = self._files[mapped.path]
        try:
            return os.pread(file, end - start, mapped.offset + start - mapped.start)
        except OSError:
            return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        for file in self._files.values():
            if file >= 0:
                os.close(file)
        self._output.__exit__(kind, error, where)


def _unknown_returns(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Returns from functions that the stack, oldest first, does not show the call of."""
    deep = np.isin(classes, _CALLS).astype(int) - (classes == BranchClass.NEAR_RET)
    depth = np.cumsum(deep)
    lowest = np.minimum.accumulate(np.concatenate([[0], depth[:-1]]))
    return (classes == BranchClass.NEAR_RET) & (depth < np.minimum(lowest, 0))
