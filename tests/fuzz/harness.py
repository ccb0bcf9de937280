"""Run a target on many variants of its seeds, in child processes.

Variant `n` of a job is a function of the job and `n` alone, so that a finding is reproduced by its
number.  A child runs many; what ends it (SIGSEGV, SIGABRT), hangs or swells is a finding of the
variant that it was at, and the next child continues after it.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import resource
import signal
import struct
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pylbr.errors import LbrError

#: Seconds that one variant may take, and bytes that a child may add to its address space.
HANG, GROWTH = 60.0, 2 << 30
#: A job ends after so many findings.
MOST = 20
_STATE = struct.Struct("<QQQQ")  # variant, refused, as the seed, otherwise


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes
    ----------
    name : str
    seeds : callable
        () -> the valid inputs, bytes.
    run : callable
        (bytes, directory) -> what was read, comparable; raises one of `refusals`.
    mutate : callable
        (random.Random, seed) -> bytes.
    refusals : tuple of exception classes
        The documented ones.
    checked : bool
        The form carries checksums: a changed byte is refused or changes nothing.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    run: Callable[[bytes, Path], object]
    mutate: Callable[..., bytes]
    refusals: tuple[type[Exception], ...] = (LbrError,)
    checked: bool = False


@dataclass
class Finding:
    """A variant that did what none may."""

    target: str
    variant: int
    what: str
    data: bytes


@dataclass
class Report:
    """Counts of one job."""

    target: str
    executions: int = 0
    refused: int = 0
    same: int = 0
    other: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)


def run_job(
    target: Target, variant: Callable[[int], tuple[bytes, int]], numbers: range, *,
    checked: bool = False,
) -> Report:
    """Run variants `numbers`; `variant` gives the bytes and the number of their seed.

    If `checked`, one that is accepted and reads otherwise than its seed is a finding.
    """
    report, start = Report(target.name), time.monotonic()
    at = numbers.start
    with mmap.mmap(-1, _STATE.size) as shared, tempfile.TemporaryDirectory(
            dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        log = Path(folder) / "findings"
        while at < numbers.stop and len(report.findings) < MOST:
            _STATE.pack_into(shared, 0, at, 0, 0, 0)
            status = _child(
                target, variant, range(at, numbers.stop), shared, Path(folder), checked)
            last, refused, same, other = _STATE.unpack_from(shared)
            report.refused += refused
            report.same += same
            report.other += other
            if log.exists():
                for line in log.read_text().splitlines():
                    number, what = json.loads(line)
                    report.findings.append(
                        Finding(target.name, number, what, variant(number)[0]))
                log.unlink()
            if status != "done":
                report.findings.append(Finding(target.name, last, status, variant(last)[0]))
            at = last + 1
    report.executions = at - numbers.start
    report.seconds = time.monotonic() - start
    return report


def _child(
    target: Target, variant: Callable[[int], tuple[bytes, int]], numbers: range,
    shared: mmap.mmap, folder: Path, checked: bool,
) -> str:
    """Run in a child; "done", or how it ended."""
    child = os.fork()
    if not child:
        code = 70
        try:
            _limit()
            _work(target, variant, numbers, shared, folder, checked)
            code = 0
        except BaseException:
            (folder / "harness").write_text(traceback.format_exc())
        os._exit(code)
    return _watch(child, shared, folder)


def _watch(child: int, shared: mmap.mmap, folder: Path) -> str:
    last, since, pause = -1, time.monotonic(), 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        now, current = time.monotonic(), _STATE.unpack_from(shared)[0]
        if current != last:
            last, since = current, now
        elif now - since > HANG:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"hangs for more than {HANG:.0f} s"
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    if not status:
        return "done"
    if os.WIFSIGNALED(status):
        return f"ends the process with {signal.Signals(os.WTERMSIG(status)).name}"
    trouble = folder / "harness"
    if trouble.exists():
        raise RuntimeError(trouble.read_text())
    return f"ends the process with exit code {os.WEXITSTATUS(status)}"


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * mmap.PAGESIZE + GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    gc.freeze()  # what the parent made is not looked at again
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    warnings.simplefilter("error")


def _work(
    target: Target, variant: Callable[[int], tuple[bytes, int]], numbers: range,
    shared: mmap.mmap, folder: Path, checked: bool,
) -> None:
    wanted: dict[int, object] = {}
    counts, noted = [0, 0, 0], 0
    for number in numbers:
        _STATE.pack_into(shared, 0, number, *counts)
        data, seed = variant(number)
        if checked and seed not in wanted:
            wanted[seed] = target.run(target.seeds()[seed], folder)
        try:
            found = target.run(data, folder)
        except target.refusals as error:
            counts[0] += 1
            if "\n" in str(error):
                _note(folder, number, f"an error of several lines: {error}")
        except BaseException as error:
            _note(folder, number, _trouble(error))
            if (noted := noted + 1) >= MOST:
                return
        else:
            if not checked:
                counts[2] += 1
            elif found == wanted[seed]:
                counts[1] += 1
            else:
                counts[2] += 1
                _note(folder, number, "is accepted and reads otherwise than its seed")
        _STATE.pack_into(shared, 0, number, *counts)


def _trouble(error: BaseException) -> str:
    """The exception, and where it came from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"


def _note(folder: Path, number: int, what: str) -> None:
    with (folder / "findings").open("a") as log:
        log.write(json.dumps([number, what]) + "\n")
