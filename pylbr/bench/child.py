"""Other processes, with the time and the memory that they take."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pylbr.errors import UnsupportedFeature

__all__ = ["Cost", "cost_of", "first_of", "pylbr", "tool", "used"]

#: Runs a command and prints what it took.  A process of its own, and a small one: the most memory
#: that a process had begins with what the one that made it had.
_LAUNCH: Final = """
import json, os, sys, time
out, errors, *command = json.loads(sys.argv[1])
begin = time.perf_counter()
pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT, 0o600),
    (os.POSIX_SPAWN_OPEN, 2, errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)])
_, status, took = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - begin,
      took.ru_utime + took.ru_stime, took.ru_maxrss * 1024)
"""


class Cost(NamedTuple):
    """Seconds from start to end, CPU seconds, and the most bytes of memory."""

    elapsed: float
    cpu: float
    memory: int


def cost_of(command: Sequence[str | os.PathLike[str]], directory: Path) -> Cost:
    """Run a command; its output is dropped.

    Raises
    ------
    UnsupportedFeature
        It fails, with the last line of its standard error.
    """
    errors = directory / "errors.txt"
    words = [os.devnull, str(errors), *(os.fspath(word) for word in command)]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", _LAUNCH, json.dumps(words)],
                          capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise UnsupportedFeature(f"{words[2]} does not start")
    code, elapsed, cpu, memory = done.stdout.split()
    if code != "0":
        last = (errors.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise UnsupportedFeature(f"{os.path.basename(words[2])} fails: {last}")
    return Cost(float(elapsed), float(cpu), int(memory))


def pylbr(*words: str | os.PathLike[str]) -> list[str]:
    """A command of this pylbr."""
    return [sys.executable, "-m", "pylbr", *(os.fspath(word) for word in words)]


def tool(name: str, package: str) -> str:
    """Path of a program.

    Raises
    ------
    UnsupportedFeature
        It is not installed; with Debian's package.
    """
    found = shutil.which(name)
    if found is None:
        raise UnsupportedFeature(f"no {name} (Debian: {package})")
    return found


def first_of(
    find: Callable[[], str], use: Callable[[str], Callable[[], object]]
) -> Callable[[], object] | str:
    """What `use` makes of a program, or why it is not there."""
    try:
        return use(find())
    except UnsupportedFeature as error:
        return str(error)


def used() -> float:
    """CPU seconds of the children so far: on a busy machine steadier than the clock."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
