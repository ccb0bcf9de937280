"""Writing a trace as a directory of Parquet files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pylbr.errors import TraceError
from pylbr.files.closing import Discarding
from pylbr.files.incomplete import lock, remove_abandoned, temporary_name
from pylbr.trace.metadata import Metadata
from pylbr.trace.place import Place
from pylbr.trace.writer import Writer

__all__ = ["PartitionedWriter"]


class PartitionedWriter(Discarding):
    """As `Writer`, into files ``part-00000.parquet`` and so on of a directory.

    Tools that work in parallel take one file each.  The directory appears when the ``with``
    ends without an exception.

    Parameters
    ----------
    path : path-like
        The directory; it must not exist.
    metadata, columns
        As those of `Writer`.
    rows : int
        Branches in each file but the last.

    Raises
    ------
    TraceError
        The directory exists or cannot be made.
    """

    def __init__(
        self, path: str | os.PathLike[str], metadata: Metadata | None = None,
        columns: Sequence[str] | None = None, *, rows: int = 1 << 26,
    ) -> None:
        if rows < 1:
            raise ValueError("at least one branch a file")
        self.path, self.count = Path(path), 0
        if self.path.exists():
            raise TraceError(path, "exists; remove it or name another directory")
        try:
            remove_abandoned(self.path.parent, self.path.name)
            self._folder, self._lock = self._create()
        except OSError as error:
            raise TraceError(path, f"cannot be written: {error.strerror}") from error
        self._head, self._columns, self._rows = metadata, columns, rows
        self._parts, self._before = 0, ""
        self._writer: Writer | None = None

    def _create(self) -> tuple[Path, int]:
        """Make and lock the temporary directory; the number by which it is locked."""
        while True:
            folder = temporary_name(self.path.parent, self.path.name)
            folder.mkdir(0o700)
            try:
                number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                folder.rmdir()
                raise
            if lock(number, folder):
                return folder, number
            os.close(number)

    def _unlock(self) -> None:
        number, self._lock = self._lock, -1
        if number >= 0:
            os.close(number)

    def write(
        self, branches: np.ndarray, task: np.ndarray | None = None, cpu: np.ndarray | None = None
    ) -> None:
        """Append branches; parameters as `Writer.write`."""
        try:
            self._write(branches, task, cpu)
        except TraceError as error:
            raise self._named(error) from error
        self.count += len(branches)

    def _named(self, error: TraceError) -> TraceError:
        """The same error with the name that the user gave."""
        return TraceError(self.path, error.what, error.offset)

    def _write(
        self, branches: np.ndarray, task: np.ndarray | None, cpu: np.ndarray | None
    ) -> None:
        done = 0
        while done < len(branches):
            if self._writer is not None and self._writer.count == self._rows:
                self._finish(last=False)
            writer = self._writer or self._next()
            end = done + min(len(branches) - done, self._rows - writer.count)
            writer.write(
                branches[done:end], None if task is None else task[done:end],
                None if cpu is None else cpu[done:end],
            )
            done = end

    def _next(self) -> Writer:
        name = f"part-{self._parts:05}.parquet"
        self._writer = Writer(self._folder / name, self._head, self._columns)
        self._parts += 1
        return self._writer

    def _finish(self, last: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            place = Place(self._parts - 1, self._before, last)
            self._before = writer.close_as(place)

    def close(self) -> None:
        """Complete the last file and give the directory its name."""
        try:
            if self._parts == 0:
                self._next()
            self._finish(last=True)
            self._folder.chmod(0o755)
            os.replace(self._folder, self.path)
            self._unlock()
        except BaseException as error:
            self.discard()
            if isinstance(error, TraceError):
                raise self._named(error) from error
            if isinstance(error, OSError):
                raise TraceError(self.path, f"cannot be written: {error.strerror}") from error
            raise

    def discard(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._unlock()
