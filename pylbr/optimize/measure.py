"""What a program costs before and after."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from pylbr.errors import CommandError

__all__ = ["Run", "check", "commands", "compare", "seconds", "taken_branches"]

#: Between two samples that are only counted.
_STEP = 1009


@dataclass(frozen=True)
class Run:
    """One run of a program.

    Attributes
    ----------
    code : int
        Exit code; -N for signal N.
    seconds : float
        CPU time, user and system, of all its processes.
    output : str
        Digest of what it wrote to standard output.
    """

    code: int
    seconds: float
    output: str


def compare(
    before: Sequence[str], after: Sequence[str], repeat: int,
    ran: Callable[[int], object] = lambda number: None,
) -> tuple[list[Run], list[Run]]:
    """Run two commands in turn, `repeat` times each, so that both see the same machine.

    `ran` is called with 1 after each run.
    """
    runs: tuple[list[Run], list[Run]] = ([], [])
    for _ in range(repeat):
        for command, found in zip((before, after), runs, strict=True):
            found.append(_run(command))
            ran(1)
    return runs


def seconds(runs: Sequence[Run]) -> float:
    """Median CPU time."""
    return median(run.seconds for run in runs)


def _run(command: Sequence[str]) -> Run:
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                 stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        digest = hashlib.file_digest(output, "sha256").hexdigest()
    return Run(child.returncode, usage.ru_utime + usage.ru_stime, digest)


def taken_branches(command: Sequence[str]) -> int | None:
    """Taken branches of one run, exact to 1,009; None where QEMU is not there to count them.

    The program runs under QEMU, many times slower than by itself.
    """
    with tempfile.TemporaryDirectory(prefix="pylbr-") as folder:
        path = os.path.join(folder, "count.perf.data")
        done = commands("record", "--engine", "qemu", "-e", "r20c4", "-c", str(_STEP), "-q",
                        "-o", path, "--", *command, quiet=True)
        if done.returncode or not os.path.exists(path):
            return None
        told = commands("inspect", "--json", path, quiet=True)
        return int(json.loads(told.stdout)["samples"]) * _STEP


def commands(*words: str, quiet: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run a command of pylbr itself; `quiet`: what it and the program print is kept back."""
    kept = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([sys.executable, "-m", "pylbr", *words], check=False,
                          **kept if quiet else {})  # type: ignore[call-overload,no-any-return]


def check(before: Sequence[Run], after: Sequence[Run]) -> str:
    """Why the two cannot be taken for the same program; empty: nothing speaks against it.

    Raises
    ------
    CommandError
        The optimised program fails where the other does not.
    """
    if {run.code for run in before} != {run.code for run in after}:
        codes = sorted({run.code for run in after} - {run.code for run in before})
        raise CommandError(f"the optimised program ends with {codes}, the other does not", 1)
    outputs = {run.output for run in before}
    if len(outputs) == 1 and {run.output for run in after} != outputs:
        raise CommandError("the optimised program prints something else", 1)
    if len(outputs) > 1:
        return "what the program prints differs from run to run; it was not compared"
    return ""
