"""The file system of the guest of ``pylbr linux``: busybox, perf with its libraries, our init."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from pylbr.linux import debian
from pylbr.linux.archive import Archive
from pylbr.linux.libraries import libraries
from pylbr.record.parts import INIT
from pylbr.record.toolchain import built

__all__ = ["initramfs"]

_PERF, _BUSYBOX = "usr/bin/perf", "bin/busybox"
_FOLDERS = ("bin", "dev", "proc", "sys", "tmp", "run", "root", "work", "etc")
#: Applets that scripts call by name; the shell of busybox finds the others by itself.
_APPLETS = ("sh", "cat", "ls", "dmesg", "mount", "grep", "sed", "awk", "head", "tail", "cut",
            "sleep", "id", "uname", "mktemp", "rm", "env", "true", "false", "test", "expr", "seq",
            "wc", "sort", "uniq", "tr", "taskset", "cp", "mv", "mkdir", "touch", "echo", "kill",
            "find", "basename", "dirname", "timeout", "dd", "readlink", "realpath", "which")


def initramfs(packages: Sequence[str] = ()) -> bytes:
    """The archive; of further packages, all their files with the libraries they need.

    Raises
    ------
    UnsupportedFeature
        A package cannot be fetched, a library is missing, or there is no C compiler.
    """
    archive = Archive()
    for folder in _FOLDERS:
        archive.directory(folder)
    archive.device("dev/console", 5, 1)
    archive.file("init", built(INIT).read_bytes(), 0o755)
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\n")
    archive.copy(_BUSYBOX, debian.file_of("busybox-static", _BUSYBOX, f"usr/{_BUSYBOX}"))
    for applet in _APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    root = debian.root_of("linux-perf", _PERF)
    archive.copy(_PERF, root / _PERF)
    archive.tree("usr/lib/perf-core/tests", root / "usr/lib/perf-core/tests")
    roots, programs = [root], [root / _PERF]
    for package in packages:
        unpacked = debian.fetch(package)
        archive.tree("/", unpacked)
        roots.append(unpacked)
        programs += [path for path in unpacked.rglob("*") if path.is_file()
                     and not path.is_symlink() and path.stat().st_mode & 0o111]
    needed = chain.from_iterable(map(debian.dependencies, ("linux-perf", *packages)))
    for place, file in libraries(programs, (*roots, Path("/")), needed).items():
        if place not in archive:
            archive.copy(place, file)
    return archive.pack()
