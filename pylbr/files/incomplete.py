"""Temporary names of outputs: locked while a process writes them, removed when it was killed.

A process locks (flock) what it writes until that has its final name.  The kernel releases the lock
when the process ends, a SIGKILL included, so what can be locked has been abandoned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

__all__ = ["lock", "remove_abandoned", "temporary_name"]

_RANDOM = 6  # bytes


def temporary_name(directory: Path, final: str) -> Path:
    """A new name for what shall be called `final`."""
    return directory / f".{final}.{secrets.token_hex(_RANDOM)}.part"


def lock(number: int, name: Path) -> bool:
    """Lock what was just created; False if another process removed it before it was locked.

    Where the file system has no locks nothing is locked, and nothing removed.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(number, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.fstat(number), os.lstat(name))
    except FileNotFoundError:
        return False


def remove_abandoned(directory: Path, final: str) -> None:
    """Remove what killed processes of this user left of earlier outputs called `final`."""
    form = re.compile(rf"\.{re.escape(final)}\.[0-9a-f]{{{2 * _RANDOM}}}\.part")
    with contextlib.suppress(OSError):  # a directory that can be written to but not listed
        for name in os.listdir(directory):
            if form.fullmatch(name):
                with contextlib.suppress(OSError):  # another process is faster, or writes it
                    _remove(directory / name)


def _remove(path: Path) -> None:
    state = os.lstat(path)
    if state.st_uid != os.geteuid() or not (
            stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        return
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(state.st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    finally:
        os.close(number)
