"""Inputs by URL: read through fsspec into a temporary file that is gone after its use.

Whatever fsspec supports can be read: http, s3, gs, sftp and others, where their packages are
installed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pylbr.errors import TraceError
from pylbr.extras import needed

__all__ = ["digest_of_url", "fetched", "identity_of_url", "is_url", "urls_of"]

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Without ``?``, with which the query of a URL begins.
_MAGIC: Final = re.compile(r"[*\[]")
#: MD5 of an object, or of the MD5s of its parts.  Other servers make an ETag of size and time.
_DIGEST: Final = re.compile(r'"?([0-9a-f]{32}(?:-[0-9]+)?)"?')
#: Seconds without a byte after which a server is given up.
PATIENCE: Final = 30.0
#: Part of the free space of the temporary directory that one input may take.
_SHARE: Final = 0.9


def is_url(word: str) -> bool:
    """Whether `word` names something that fsspec reads, and no file here."""
    return _URL.match(word) is not None and not os.path.exists(word)


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for `url`, and the path there."""
    fsspec = needed("fsspec.core")
    try:
        found: tuple[Any, str] = fsspec.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise TraceError(url, f"cannot be read: {_line(error)}") from error
    return found


def _line(error: BaseException) -> str:
    """The text of an error, in one line."""
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    if status and message:
        return f"the server answers {status} {message}"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Watched:
    """A call in a thread of its own, which is given up when nothing happens for `PATIENCE`.

    Not every file system of fsspec has a limit of time.
    """

    def __init__(self, url: str) -> None:
        self.url, self.given_up = url, False
        self._alive = time.monotonic()
        self._result: list[Any] = []
        self._error: BaseException | None = None

    def tick(self) -> None:
        """Something has arrived."""
        self._alive = time.monotonic()

    def run(self, call: Any, *args: Any, **options: Any) -> Any:
        """Result of ``call(*args, **options)``."""
        def body() -> None:
            try:
                self._result.append(call(*args, **options))
            except Exception as error:  # noqa: BLE001  of any of fsspec's back ends
                self._error = error

        self.tick()
        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        while thread.is_alive():
            left = self._alive + PATIENCE - time.monotonic()
            if left <= 0:
                self.given_up = True
                raise TraceError(self.url, f"nothing has arrived for {PATIENCE:g} seconds; "
                                 "try again later, or fetch it by other means")
            thread.join(min(left, 1.0))
        if isinstance(self._error, TraceError):
            raise self._error
        if self._error is not None:
            raise TraceError(self.url, f"cannot be read: {_line(self._error)}") from self._error
        return self._result[0]


def urls_of(word: str) -> list[str]:
    """Files that a URL stands for: a pattern's (``*``, ``[]``) in order, a folder's (``/``) too.

    Raises
    ------
    TraceError
        There are none, or the server does not list them.
    """
    folder = word.endswith("/")
    if not folder and not _MAGIC.search(word):
        return [word]
    system, path = _file_system(word)
    watched = _Watched(word)
    if folder:
        entries = watched.run(system.ls, path, detail=True)
        found = [entry["name"] for entry in entries if entry["type"] == "file"]
        found = [name for name in found if not name.rpartition("/")[2].startswith(".")]
    else:
        found = watched.run(system.glob, path)
    if not found:
        raise TraceError(word, "is a folder without files" if folder else "matches no file")
    return sorted(system.unstrip_protocol(name) for name in found)


def identity_of_url(url: str) -> list[Any]:
    """What changes when a URL holds another file, as far as its server reports it."""
    system, path = _file_system(url)
    info = _Watched(url).run(system.info, path)
    told = [str(info[key]) for key in ("ETag", "etag", "LastModified", "mtime", "created")
            if info.get(key) is not None]
    return [url, info.get("size"), *told]


def digest_of_url(url: str) -> str | None:
    """Digest of what a URL holds, if its server keeps one; what cannot be asked shows when read."""
    try:
        told = identity_of_url(url)
    except TraceError:
        return None
    found = _DIGEST.fullmatch(str(told[2])) if len(told) > 2 else None
    return f"{found[1]} {told[1]}" if found else None


@contextmanager
def fetched(names: Sequence[str]) -> Iterator[list[str]]:
    """Paths of files that hold what `names` name, URLs fetched, for the time of the block.

    Errors about such a file name its URL.

    Raises
    ------
    TraceError
        A server answers with an error or too slowly, or there is no room for the file.
    """
    if not any(map(is_url, names)):
        yield list(names)
        return
    urls: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pylbr-") as folder:
        paths = []
        for number, name in enumerate(names):
            if is_url(name):
                path = os.path.join(folder, f"{number}-{_base(name)}")
                _fetch(name, path)
                urls[path] = name
                name = path
            paths.append(name)
        try:
            yield paths
        except TraceError as error:
            if error.path not in urls:
                raise
            raise TraceError(urls[error.path], error.what, error.offset) from error


def _base(url: str) -> str:
    """A name with the same suffixes."""
    return re.sub(r"[^\w.-]", "_", url.partition("?")[0].rstrip("/").rpartition("/")[2])[-100:]


def _fetch(url: str, path: str) -> None:
    from fsspec.callbacks import Callback

    system, remote = _file_system(url)
    most = int(shutil.disk_usage(os.path.dirname(path)).free * _SHARE)
    watched = _Watched(url)

    class Progress(Callback):  # type: ignore[misc]
        """Ends what takes too much room, or is not waited for any more."""

        def call(self, *args: Any, **options: Any) -> None:
            watched.tick()
            if watched.given_up:
                raise TraceError(url, "is not waited for")
            if max(self.value, self.size or 0) > most:
                raise TraceError(
                    url, f"has more bytes ({max(self.value, self.size or 0):,}) than there is "
                    f"room for in {os.path.dirname(os.path.dirname(path))}; set TMPDIR")

    progress = Progress()
    watched.run(system.get_file, remote, path, callback=progress)
    if not os.path.isfile(path):
        raise TraceError(url, "is a folder; end it with / to take its files")
    if progress.size and os.path.getsize(path) != progress.size:
        raise TraceError(url, f"is cut off: {os.path.getsize(path):,} of {progress.size:,} bytes")
