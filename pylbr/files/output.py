"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO, Self

from pylbr.errors import TraceError
from pylbr.files.incomplete import lock, remove_abandoned, temporary_name

__all__ = ["AtomicFile", "Completed", "write_text"]


class Completed(ABC):
    """An output whose ``with`` commits it, or discards it on an exception."""

    @abstractmethod
    def commit(self) -> None:
        """Complete the file; after that it exists."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what was written; a second call does nothing."""

    @abstractmethod
    def failure(self, error: OSError) -> TraceError:
        """The error of a write, as the user shall see it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if kind is None:
            self.commit()
            return
        self.discard()
        if isinstance(error, OSError) and not isinstance(error, TraceError):
            raise self.failure(error) from error


class AtomicFile(Completed):
    """A file written under a temporary name in the directory of its final one.

    What killed processes left of earlier files of that name is removed first.
    `commit` gives it its name; `discard`, or an exception in a ``with``, removes it.
    Attribute `file` is the binary file to write to, `directory` where it lies.  A pipe or
    character device of the name stays: `commit` writes into it what was gathered elsewhere.

    Raises
    ------
    TraceError
        The directory does not exist or cannot be written to; a socket or disk has the name.
    """

    file: BinaryIO = None  # type: ignore[assignment]
    directory: Path
    _open = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._stream = self.path.is_fifo() or self.path.is_char_device()
            if self.path.exists() and not (self._stream or self.path.is_file()):
                what = "directory" if self.path.is_dir() else "socket or disk"
                raise TraceError(self.path, f"is a {what}; name a file")
            if not self._stream:  # the file a link points to, not the link, is replaced
                self.path = Path(os.path.realpath(path))
            self.directory = Path(tempfile.gettempdir()) if self._stream else self.path.parent
            remove_abandoned(self.directory, self.path.name)
            number = self._create()
        except OSError as error:
            self._open = False
            raise TraceError(
                self.path, f"cannot be written: {error.strerror}; choose another directory"
            ) from error
        self.file = os.fdopen(number, "wb")

    def _create(self) -> int:
        """Open and lock the temporary file; its number."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            # A signal may raise between any two of these lines: the name is kept before the file
            # exists, so that `__del__` finds it.
            self._temporary = temporary_name(self.directory, self.path.name)
            self._open = True
            number = os.open(self._temporary, flags, 0o600)
            if lock(number, self._temporary):
                return number
            os.close(number)

    def commit(self) -> None:
        """Flush, synchronise and rename; after that the file exists."""
        try:
            self.file.flush()
            if self._stream:
                self._pour()
            else:
                self._name()
        except OSError as error:
            self.discard()
            raise self.failure(error) from error
        self.discard()  # only a stream leaves anything

    def _pour(self) -> None:
        with open(self._temporary, "rb") as gathered, open(self.path, "wb") as stream:
            shutil.copyfileobj(gathered, stream)

    def _name(self) -> None:
        os.fsync(self.file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(self._temporary, 0o666 & ~mask)
        os.replace(self._temporary, self.path)
        self._open = False
        self.file.close()  # unlocks: not before it has its name

    def discard(self) -> None:
        """Remove what was written; a second call does nothing."""
        if self._open:
            self._open = False
            if self.file:
                with contextlib.suppress(OSError):  # a full disk shows here again
                    self.file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def __del__(self) -> None:
        self.discard()

    def failure(self, error: OSError) -> TraceError:
        """The error of a write, as the user shall see it."""
        reason = error.strerror or str(error)
        return TraceError(self.path, f"cannot be written: {reason}; nothing was left there")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file.

    Raises
    ------
    TraceError
        It cannot be written.
    """
    with AtomicFile(path) as output:
        output.file.write(text.encode())
