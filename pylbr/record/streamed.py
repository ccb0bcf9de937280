"""Full mode into a .lbrt file while the program runs: a thread encodes what it executes."""

from __future__ import annotations

import queue
import threading
from typing import Final, Protocol

import numpy as np

from lbrcore.predictor import Predictor
from pylbr.record._blocks import BlockWalk
from pylbr.record.engine import Request, Sink
from pylbr.record.tasks import Task
from pylbr.record.wire import DAMAGED, BlockTables
from pylbr.trace._edges import Edges

__all__ = ["BlockSink", "Streamed", "WayTable"]

#: Chunks that wait for the encoder, of 256 KiB; after that the program waits.
_WAITING: Final = 64


class NumberedByWays(Protocol):
    """Numbers edges by ways; see `pylbr.record.native.full._numbered_ways`."""

    def forget(self) -> None: ...
    def count_uses(self) -> None: ...
    def number(
        self, blocks: BlockWalk, ran: np.ndarray, ways: np.ndarray, first: int, out: np.ndarray,
        last: int,
    ) -> tuple[int, int, int, np.ndarray, np.ndarray]: ...


class WayTable(Protocol):
    """What the words of a ring stand for that are no numbers of blocks.

    Attributes
    ----------
    branches_per_word : int
        At most.
    """

    branches_per_word: int

    def ways(self) -> np.ndarray:
        """(n, 2) array of uint32: first block and number of blocks of each way, so far."""

    def expanded(self, words: np.ndarray) -> np.ndarray:
        """The numbers of blocks that words stand for.

        Raises
        ------
        ValueError
            A number that no way has.
        """

    def numbered(self, edges: Edges) -> NumberedByWays:
        """What numbers a trace's edges by them."""


class BlockSink(Sink, Protocol):
    """A sink that takes the blocks of a full recording as they run, in a thread of their own.

    Attributes
    ----------
    streams : bool
        Whether it does.
    count : int
        Branches so far.
    size : int
        Bytes in its file so far.
    """

    streams: bool
    count: int
    size: int

    def blocks(
        self, task: int, walk: BlockWalk, words: np.ndarray, ways: WayTable | None = None
    ) -> bool:
        """The next words of a thread's ring; `task` and result as those of `branches`.

        Parameters
        ----------
        ways : WayTable, optional
            What they stand for, if not for blocks.

        Raises
        ------
        ValueError
            A number that no block has.
        """


class Streamed:
    """Encodes the chunks of all threads in the order of their arrival; memory is bounded.

    Parameters
    ----------
    wire, request, sink
        As those of the recording.
    ways : WayTable, optional
        As that of `BlockSink.blocks`.

    Attributes
    ----------
    remarks : list of str
        What the user should know.
    """

    def __init__(
        self, wire: BlockTables, request: Request, sink: BlockSink, ways: WayTable | None = None
    ) -> None:
        self._wire, self._request, self._sink, self._ways = wire, request, sink, ways
        self._tables = wire.live_tables()
        self._walks: dict[int, BlockWalk] = {}
        self._predictors: dict[int, Predictor] = {}
        self._queue: queue.Queue[tuple[Task, np.ndarray] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._over = False
        self._words = 0
        self.remarks: list[str] = []
        self._thread = threading.Thread(target=self._work, name="pylbr-encode", daemon=True)
        self._thread.start()

    @property
    def words(self) -> int:
        """About how many branches there are so far: a block has about one, a way some."""
        return self._words if self._ways is None else self._sink.count

    @property
    def size(self) -> int:
        """Bytes in the file so far."""
        return self._sink.size

    def ready(self) -> bool:
        """Whether a chunk can be taken without waiting."""
        return not self._queue.full()

    def append(self, task: Task, words: np.ndarray) -> bool:
        """Take a chunk; False, once and for all, when the file takes no more."""
        if self._over:
            return False
        self._queue.put((task, words))
        self._words += len(words)
        return not self._over

    def finish(self, wire: BlockTables, request: Request, sink: Sink) -> int:
        """Encode what is left; returns the number of gaps."""
        self.close()
        if self._error is not None:
            raise self._error
        return sum(walk.gaps for walk in self._walks.values())

    def close(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._over:
                continue
            try:
                self._over = not self._encode(*item)
            except BaseException as error:  # the recording's thread raises it
                self._error, self._over = error, True

    def _encode(self, task: Task, words: np.ndarray) -> bool:
        walk = self._walks.get(task.index)
        if walk is None:
            walk = self._walks[task.index] = BlockWalk(*self._tables, self._request.cycles)
        walk.limit(self._wire.block_count)
        try:
            if not self._request.mispredicts:
                table = () if self._ways is None else (self._ways,)
                return self._sink.blocks(task.number, walk, words, *table)
            branches = walk.feed(self._ways.expanded(words) if self._ways else words)
        except ValueError:
            if DAMAGED not in self.remarks:
                self.remarks.append(DAMAGED)
            del self._walks[task.index]
            return True
        if task.index not in self._predictors:
            self._predictors[task.index] = Predictor(self._request.mispredicts)
        self._predictors[task.index].mark(branches)
        return self._sink.branches(task.number, branches)
