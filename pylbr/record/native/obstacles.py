"""What keeps the recorder out of a process that already runs its program."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["obstacle"]

#: Programs that serve every signal of what they run: a tick is not for them.
_SOLITARY: Final = ("/valgrind/",)
_STRICT: Final = 1


def obstacle(pid: int) -> str:
    """Why system calls may not be made in a process's name, or signals sent to it; empty if
    nothing is in the way.

    A seccomp filter that the process has installed may kill it for a call; those that it shares
    with the recorder, as in a container, do not count.
    """
    mode, filters = _seccomp(pid)
    own_mode, own_filters = _seccomp(os.getpid())
    if mode == _STRICT or filters > own_filters or mode > own_mode:
        return "it has installed a seccomp filter, which might kill it for the recorder's calls"
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
    if any(part in program for part in _SOLITARY):
        return f"{os.path.basename(program)} serves the signals of the program it runs"
    return ""


def _seccomp(pid: int) -> tuple[int, int]:
    """Mode of seccomp and number of filters (0 on Linux before 5.9, which does not report it)."""
    found = {"Seccomp": 0, "Seccomp_filters": 0}
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in found:
                    found[name] = int(value)
    except OSError:
        pass
    return found["Seccomp"], found["Seccomp_filters"]
