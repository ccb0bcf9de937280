"""cpio archives: what a kernel unpacks at boot, and what guest and host send one another.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from pylbr.errors import StateError

__all__ = ["Archive", "read"]

_MAGIC, _TRAILER = b"070701", "TRAILER!!!"
_HEADER = 110
_MODE, _SIZE, _NAME_SIZE = 1, 6, 11


class Archive:
    """Files by their path in the guest; the archive's bytes depend on nothing else.

    Owners are root, times 0.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def _put(self, path: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        path = path.strip("/")
        parent = os.path.dirname(path)
        if parent and parent not in self._entries:
            self.directory(parent)
        self._entries[path] = mode, data, device

    def __contains__(self, path: str) -> bool:
        return path.strip("/") in self._entries

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory, and those above it."""
        self._put(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._put(path, stat.S_IFREG | mode, data)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._put(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._put(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def copy(self, path: str, source: Path) -> None:
        """Add a file of the host, with its permission bits; links are followed."""
        self.file(path, source.read_bytes(), source.stat().st_mode & 0o777)

    def tree(self, path: str, source: Path) -> None:
        """Add a directory of the host, links as links."""
        for top, folders, files in os.walk(source):
            place = path.rstrip("/") + "/" + os.path.relpath(top, source)
            place = os.path.normpath(place)
            self.directory(place)
            for name in sorted(files + folders):
                item = Path(top, name)
                if item.is_symlink():
                    self.link(f"{place}/{name}", os.readlink(item))
                elif item.is_file():
                    self.copy(f"{place}/{name}", item)

    def pack(self) -> bytes:
        """The archive."""
        out = bytearray()
        for number, (path, (mode, data, device)) in enumerate(sorted(self._entries.items()), 1):
            _append(out, number, path, mode, data, device)
        _append(out, 0, _TRAILER, 0, b"", (0, 0))
        return bytes(out)


def _append(out: bytearray, inode: int, path: str, mode: int, data: bytes,
            device: tuple[int, int]) -> None:
    name = path.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
    out += _MAGIC + b"".join(b"%08x" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += data
    out += bytes(-len(out) % 4)


def read(data: bytes) -> dict[str, bytes]:
    """Regular files of an archive, by path; nothing of it is trusted.

    Raises
    ------
    StateError
        A damaged archive, or a path that leads out of its directory.
    """
    files: dict[str, bytes] = {}
    at = 0
    while True:
        head = data[at:at + _HEADER]
        if len(head) < _HEADER or not head.startswith(_MAGIC):
            raise StateError(f"no cpio archive, or a damaged one, at byte {at}")
        try:
            fields = [int(head[6 + 8 * n:14 + 8 * n], 16) for n in range(13)]
        except ValueError:
            raise StateError(f"damaged cpio archive, at byte {at}") from None
        name = data[at + _HEADER:at + _HEADER + fields[_NAME_SIZE]][:-1].decode("utf-8", "replace")
        at += _HEADER + fields[_NAME_SIZE]
        at += -at % 4
        contents = data[at:at + fields[_SIZE]]
        at += fields[_SIZE]
        at += -at % 4
        if name == _TRAILER:
            return files
        if stat.S_ISREG(fields[_MODE]):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\0" in name:
                raise StateError(f"the archive has a file named {name!r}")
            if len(contents) != fields[_SIZE]:
                raise StateError("the archive ends inside a file")
            files[str(path)] = contents
