"""Where full mode keeps block numbers until the program has ended."""

from __future__ import annotations

import contextlib
import signal
import struct
import tempfile
from collections.abc import Iterator
from typing import Final

import numpy as np
import zstandard

from lbrcore.predictor import Predictor
from pylbr.record._blocks import BlockWalk
from pylbr.record.engine import Request, Sink
from pylbr.record.tasks import Task
from pylbr.record.wire import DAMAGED, BlockTables

__all__ = ["Spool", "branches_of"]

#: Fast enough to keep up with a program that runs 300 million blocks a second.
_LEVEL: Final = -5
_HEAD: Final = struct.Struct("<III")


class Spool:
    """A temporary file without a name: chunks of words, compressed, in the order of arrival.

    Parameters
    ----------
    most_bytes : int, optional
        The largest trace that will be made of it, or 0: no trace is smaller than its words.

    Attributes
    ----------
    words, size : int
        Words kept, and the bytes that they take.
    full : bool
        More has come than a file of that size can hold.
    remarks : list of str
        That the disk was full, if it was.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self._most = most_bytes
        self._file = tempfile.TemporaryFile(prefix="pylbr-")  # noqa: SIM115
        self._compress = zstandard.ZstdCompressor(_LEVEL).compress
        self.size, self.full = 0, False
        self.numbers: dict[int, int] = {}
        self.words = 0
        self.remarks: list[str] = []

    def append(self, task: Task, words: np.ndarray) -> bool:
        """Keep a chunk; False, once and for all, when the disk is full."""
        self.full = self.full or bool(self._most and self.size > self._most)
        if self.remarks or self.full:
            return False
        data = self._compress(words.data)
        try:
            self._file.write(_HEAD.pack(task.index, len(words), len(data)) + data)
            self._file.flush()
        except OSError as error:
            self.remarks.append(
                f"{tempfile.gettempdir()}: {error.strerror}; what came later is missing "
                "(TMPDIR may point elsewhere)"
            )
            return False
        self.size += _HEAD.size + len(data)
        self.words += len(words)
        self.numbers[task.index] = task.number
        return True

    def ready(self) -> bool:
        """Whether a chunk can be taken without waiting."""
        return True

    def finish(self, wire: BlockTables, request: Request, sink: Sink) -> int:
        """Send all branches to the sink; returns the number of gaps."""
        return branches_of(self, wire, request, sink)

    def close(self) -> None:
        """Release the disk space."""
        self._file.close()

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (task index, words) in order."""
        decompress = zstandard.ZstdDecompressor().decompress
        self._file.seek(0)
        at = 0
        while at < self.size:
            index, count, size = _HEAD.unpack(self._file.read(_HEAD.size))
            words = np.frombuffer(decompress(self._file.read(size), count * 4), np.uint32)
            at += _HEAD.size + size
            yield index, words


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Numbers of the signals that ask for an end, as they come, while the ``with`` runs."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def branches_of(spool: Spool, wire: BlockTables, request: Request, sink: Sink) -> int:
    """Send all branches to the sink, until it takes no more or a signal comes, which is then
    among the remarks of `spool`; returns the number of gaps."""
    sink.expect(spool.words, spool.size, True)
    blocks, lengths = wire.blocks(), wire.lengths()
    walks: dict[int, BlockWalk] = {}
    predictors: dict[int, Predictor] = {}
    done = 0
    with _noted_signals() as signals:
        for index, words in spool.chunks():
            if index not in walks:
                walks[index] = BlockWalk(blocks, lengths, request.cycles)
            try:
                branches = walks[index].feed(words)
            except ValueError:
                if DAMAGED not in spool.remarks:
                    spool.remarks.append(DAMAGED)
                del walks[index]
                continue
            if request.mispredicts:
                # One per thread: no thread disturbs another, as if each had a processor.
                if index not in predictors:
                    predictors[index] = Predictor(request.mispredicts)
                predictors[index].mark(branches)
            if not sink.branches(spool.numbers[index], branches):
                break
            done += len(words)
            if signals and done < spool.words:
                spool.remarks.append(
                    f"{signal.Signals(signals[0]).name}: the file holds the first "
                    f"{done / spool.words:.1%} of the branches"
                )
                break
        else:
            if spool.full:  # a full file reports it itself
                spool.remarks.append("--max-size: the recording was ended; the rest is missing")
    return sum(walk.gaps for walk in walks.values())
