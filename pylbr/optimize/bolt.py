"""LLVM's BOLT: where it is, and how it is called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pylbr.errors import CommandError

__all__ = ["Bolt", "find_bolt"]

#: The first that reads trace lines (`pylbr.profile.preagg`).
_TRACES = 22
_LAYOUT = ("-reorder-blocks=ext-tsp", "-reorder-functions=hfsort", "-split-functions",
           "-split-all-cold", "-split-eh", "-icf=1")


@dataclass(frozen=True)
class Bolt:
    """An installed BOLT.

    Attributes
    ----------
    folder : Path
        Of perf2bolt and llvm-bolt.
    version : int
        LLVM's major number.
    """

    folder: Path
    version: int

    @property
    def preagg_form(self) -> str:
        """The form of pre-aggregated text that it reads."""
        return "traces" if self.version >= _TRACES else "branches"

    def profile(self, preagg: str, program: str, fdata: str) -> int:
        """Turn pre-aggregated text into its own form.

        Returns
        -------
        int
            Traces that do not fit the program's code: of a right profile 0.

        Raises
        ------
        CommandError
            With BOLT's output.
        """
        said = self._run("perf2bolt", "-pa", "-p", preagg, "-o", fdata, program)
        found = re.search(r"traces mismatching disassembled function contents: (\d+)", said)
        if found is None or not os.path.getsize(fdata):
            raise CommandError(f"perf2bolt found nothing of {program} in the recording", 1)
        return int(found[1])

    def lay_out(self, program: str, fdata: str, output: str) -> int:
        """Write `program` with its hot code together.

        Returns
        -------
        int
            Functions that have a profile.

        Raises
        ------
        CommandError
            With BOLT's output.
        """
        said = self._run("llvm-bolt", program, "-o", output, f"-data={fdata}", *_LAYOUT)
        found = re.search(r"(\d+) out of \d+ functions in the binary .* have non-empty execution "
                          "profile", said)
        return int(found[1]) if found else 0

    def _run(self, tool: str, *words: str) -> str:
        # By its full path: under the name perf2bolt-19 the tool takes itself for llvm-bolt.
        done = subprocess.run([str(self.folder / tool), *words], capture_output=True, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, check=False)
        said = done.stdout + done.stderr
        if done.returncode:
            reason = [line for line in said.splitlines() if "ERROR" in line or "error:" in line]
            last = (reason or said.splitlines() or ["no word"])[-1]
            raise CommandError(f"{tool}: {last.strip()}", 1)
        return said


def find_bolt(folder: str | None = None, places: Sequence[str] = ("/usr/lib",)) -> Bolt:
    """The newest BOLT that is installed.

    Parameters
    ----------
    folder : str, optional
        Take the one here.
    places : sequence of str
        Where distributions put LLVM, one folder ``llvm-N`` a version.

    Raises
    ------
    CommandError
        There is none.
    """
    if folder is not None:
        candidates = [Path(folder)]
    else:
        candidates = [path / "bin" for place in places for path in Path(place).glob("llvm-*")]
        found = shutil.which("llvm-bolt")
        candidates += [Path(found).resolve().parent] if found else []
    bolts = [Bolt(path, version) for path in candidates
             if (path / "perf2bolt").exists() and (version := _version(path / "llvm-bolt"))]
    if not bolts:
        where = folder or "this machine"
        raise CommandError(f"no perf2bolt and llvm-bolt on {where}: install LLVM's BOLT (Debian: "
                           "apt install bolt-19), or name their folder with --bolt")
    return max(bolts, key=lambda bolt: bolt.version)


def _version(tool: Path) -> int:
    """LLVM's major number, 0 if it does not run."""
    try:
        said = subprocess.run([str(tool), "--version"], capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL).stdout
    except OSError:
        return 0
    found = re.search(r"version (\d+)", said)
    return int(found[1]) if found else 0
