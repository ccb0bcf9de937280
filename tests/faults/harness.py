"""Let the n-th call of a kind fail in a run of a command, and judge what comes of it.

The process that does this runs under the shim (`preload`), has imported what the commands import,
and forks a child for each run: only the calls of the command itself are counted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.forked import OLD, Forked
from tests.faults.runs import Run

__all__ = ["FAULTS", "Faulty", "Outcome", "judge", "preload"]

_KINDS: Final = ("none", "write", "read", "fsync", "rename", "mmap", "malloc", "open",
                "fork", "ptrace", "perf_event_open")
_ONCE, _FROM_THEN_ON, _HALF = range(3)
#: What libraries say and then end the process or wait for ever: the engine of Unicorn without
#: memory for its code, and a thread of Python 3.11 without any before its first line.
_OTHERS: Final = ("Could not allocate dynamic translator buffer",
                  "Exception ignored in thread started by")
#: Fault -> kind of call, error, manner.
FAULTS: Final = {
    "write": ("write", errno.ENOSPC, _ONCE),
    "every write": ("write", errno.ENOSPC, _FROM_THEN_ON),
    "short write": ("write", 0, _HALF),
    "interrupted write": ("write", errno.EINTR, _ONCE),
    "read": ("read", errno.EIO, _ONCE),
    "short read": ("read", 0, _HALF),
    "interrupted read": ("read", errno.EINTR, _ONCE),
    "fsync": ("fsync", errno.EIO, _ONCE),
    "rename": ("rename", errno.EIO, _ONCE),
    "mmap": ("mmap", errno.ENOMEM, _ONCE),
    "malloc": ("malloc", errno.ENOMEM, _ONCE),
    "open": ("open", errno.EMFILE, _ONCE),
    "fork": ("fork", errno.EAGAIN, _ONCE),
    "ptrace": ("ptrace", errno.EPERM, _ONCE),
    "perf_event_open": ("perf_event_open", errno.EACCES, _ONCE),
    "every perf_event_open": ("perf_event_open", errno.EACCES, _FROM_THEN_ON),
}


def preload() -> None:
    """Run this very call once more, under the shim, if it does not yet."""
    if "PYLBR_FAULTS" in os.environ:
        del os.environ["LD_PRELOAD"]  # not for what commands start
        return
    folder = tempfile.mkdtemp()
    shim = os.path.join(folder, "fail_nth.so")
    subprocess.run([*os.environ.get("CC", "cc").split(), "-O1", "-Wall", "-Wextra", "-shared",
                    "-fPIC", "-o", shim, Path(__file__).with_name("fail_nth.c"), "-ldl"],
                   check=True)
    done = subprocess.run(
        sys.orig_argv, env={**os.environ, "LD_PRELOAD": shim, "PYLBR_FAULTS": shim}, check=False)
    shutil.rmtree(folder)
    sys.exit(done.returncode)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes
    ----------
    code : int
        Exit code; minus the signal's number.
    out, error : str
    files : dict of str to bytes
        In its directory and that of its temporary files.
    fired : bool
        Whether the call failed.
    """

    code: int
    out: str
    error: str
    files: dict[str, bytes]
    fired: bool


class Faulty(Forked):
    """Runs with faults.

    Parameters
    ----------
    inputs : Path
        Directory of the runs' inputs.
    """

    def __init__(self, inputs: Path) -> None:
        super().__init__(inputs)
        self._shim = ctypes.CDLL(os.environ["PYLBR_FAULTS"])
        self._shim.fault_disarm.restype = self._shim.fault_seen.restype = ctypes.c_long
        self._shim.fault_arm.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]

    def counted(self, run: Run) -> dict[str, int]:
        """Calls of each kind of a run without fault."""
        self.clear()
        self._run(run, None)
        return dict(zip(_KINDS, map(int, self._counts.read_text().split()), strict=True))

    def outcome(
        self, run: Run, fault: str | None = None, n: int = 0, again: bool = False,
    ) -> Outcome:
        """Of a run with a fault; `again`: in the directory of the one before."""
        if not again:
            self.clear()
        code = self._run(run, (fault, n) if fault else None)
        place = self.folder
        files = {str(path.relative_to(place)): path.read_bytes()
                 for part in ("work", "tmp") for path in sorted((place / part).rglob("*"))
                 if path.is_file()}
        fired = int(self._counts.read_text().split()[0]) if self._counts.exists() else 0
        return Outcome(code, (place / "out").read_text(errors="replace"),
                       (place / "error").read_text(errors="replace"), files, bool(fired))

    @property
    def _counts(self) -> Path:
        return self.folder / "counts"

    def _run(self, run: Run, fault: tuple[str, int] | None) -> int:
        self._counts.unlink(missing_ok=True)
        output = self.folder / "work" / run.output
        if run.output and not output.exists():
            output.write_bytes(OLD)
        kind, number, manner = FAULTS[fault[0]] if fault else ("none", 0, 0)

        def arm() -> None:
            self._shim.fault_arm(_KINDS.index(kind), fault[1] if fault else 0, number, manner)

        def disarm() -> None:  # what failed, and the calls of each kind
            counts = [self._shim.fault_disarm()]
            counts += [self._shim.fault_seen(i) for i in range(1, len(_KINDS))]
            self._counts.write_text(" ".join(map(str, counts)))

        return self.wait(self.start(run, arm, disarm))


def judge(run: Run, whole: Outcome, found: Outcome, fault: str) -> str:
    """What is wrong with a run in which a call failed; empty if nothing is."""
    if any(text in found.error for text in _OTHERS):
        return ""
    if found.code < 0:
        return f"ended by signal {-found.code}"
    if "Traceback" in found.error or "Exception ignored" in found.error:
        return "traceback: " + (found.error.strip().splitlines() or [""])[-1]
    name = f"work/{run.output}"
    written = found.files.get(name, b"")
    extra = [path for path in found.files if path not in whole.files
             and not (run.kept and path.startswith(f"work/{run.kept}/") and "/." not in path)]
    if extra:
        return f"left {', '.join(extra)}"
    said = [line for line in found.error.splitlines() if line not in whole.error.splitlines()]
    if found.code == whole.code and said and found.files == whole.files:
        return "" if len(said) == 1 else f"{len(said)} lines: {found.error!r}"
    if found.code == whole.code:
        if (found.out, found.error) != (whole.out, whole.error) and run.same:
            return f"other output, exit code {found.code}"
        if found.files != whole.files and run.same or run.output and written in (b"", OLD):
            return f"other file, exit code {found.code}"
        return ""
    if found.code != 2:
        return f"exit code {found.code}: {found.error!r}"
    if run.output and written not in (OLD, whole.files[name]):
        return "part of a file under the final name"
    if len(said) != 1 or not said[0].startswith(f"pylbr {run.command}: "):
        return f"{len(said)} lines: {found.error!r}"
    if "None" in said[0] or fault == "read" and (
            "cannot be written" in said[0] and f"{run.output}:" not in said[0]):
        return f"a line that misleads: {said[0]}"
    return ""
