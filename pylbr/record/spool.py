"""Where full mode keeps block numbers until the program has ended."""

from __future__ import annotations

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
from pylbr.record.wire import Wire

__all__ = ["Spool", "branches_of"]

#: Fast enough to keep up with a program that runs 300 million blocks a second.
_LEVEL: Final = -5
_HEAD: Final = struct.Struct("<III")


class Spool:
    """A temporary file without a name: chunks of words, compressed, in the order of arrival.

    Attributes
    ----------
    remarks : list of str
        That the disk was full, if it was.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="pylbr-")  # noqa: SIM115
        self._compress = zstandard.ZstdCompressor(_LEVEL).compress
        self._complete = 0
        self.numbers: dict[int, int] = {}
        self.words = 0
        self.remarks: list[str] = []

    def append(self, task: Task, words: np.ndarray) -> bool:
        """Keep a chunk; False, once and for all, when the disk is full."""
        if self.remarks:
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
        self._complete += _HEAD.size + len(data)
        self.words += len(words)
        self.numbers[task.index] = task.number
        return True

    def close(self) -> None:
        """Give the disk's room back."""
        self._file.close()

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (task index, words) in order."""
        decompress = zstandard.ZstdDecompressor().decompress
        self._file.seek(0)
        at = 0
        while at < self._complete:
            index, count, size = _HEAD.unpack(self._file.read(_HEAD.size))
            words = np.frombuffer(decompress(self._file.read(size), count * 4), np.uint32)
            at += _HEAD.size + size
            yield index, words


def branches_of(spool: Spool, wire: Wire, request: Request, sink: Sink) -> int:
    """Send all branches to the sink; returns the number of gaps."""
    blocks, lengths = wire.blocks(), wire.lengths()
    walks: dict[int, BlockWalk] = {}
    predictors: dict[int, Predictor] = {}
    for index, words in spool.chunks():
        if index not in walks:
            walks[index] = BlockWalk(blocks, lengths, request.cycles)
        branches = walks[index].feed(words)
        if request.mispredicts:
            # One a thread: no thread disturbs another, as if each had a processor.
            if index not in predictors:
                predictors[index] = Predictor(request.mispredicts)
            predictors[index].mark(branches)
        sink.branches(spool.numbers[index], branches)
    return sum(walk.gaps for walk in walks.values())
