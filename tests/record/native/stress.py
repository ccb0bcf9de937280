"""Windows with signals and faults at random points: does the program compute what it does alone?

    python -m tests.record.native.stress [--windows 10000000] [--seconds 3600] [--results FILE]

Runs tests/record/native/programs/stress.c again and again at 50 kHz, with other seeds each time and
with one window per tick and eight in turn, until so many windows have been made or the time is
over, and compares what it prints.  With --results, what was found is kept in that file after each
run, and a later call continues from there.  Exit code 1: a run differed, in this call or before.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.record.conftest import ROOT
from tests.record.native.conftest import PROGRAMS

RATE = 50_000
ROUNDS = 20_000_000
THREADS = 4  # of the program, with a seed each
BURSTS = 1, 8


def counts_of(said):
    """Windows, and how many of them ended in a system call, a fault, ...: the recorder's lines."""
    counts = Counter()
    for windows, cut in re.findall(r"([\d,]+) windows, of which cut: (.*)", said):
        counts["windows"] += int(windows.replace(",", ""))
        for number, why in re.findall(r"([\d,]+) ([a-z ]+)", cut):
            counts[why.strip()] += int(number.replace(",", ""))
    return counts


class Results:
    """What was found so far; kept in a file, if there is one."""

    def __init__(self, path):
        self._path = path
        kept = json.loads(path.read_text()) if path and path.exists() else {}
        self.runs, self.differ = kept.get("runs", 0), kept.get("differ", 0)
        self.total = Counter(kept.get("total", {}))

    def add(self, counts, differs):
        """Take in a run."""
        self.runs, self.differ = self.runs + 1, self.differ + differs
        self.total.update(counts)
        if self._path:
            made = self._path.with_name(self._path.name + ".part")
            made.write_text(json.dumps({
                "runs": self.runs, "differ": self.differ, "next seed": self.seed,
                "total": dict(self.total), "date": time.strftime("%F %T")}, indent=1) + "\n")
            made.replace(self._path)

    @property
    def seed(self):
        """The first of the next run's seeds; those of two runs in turn, with other bursts, are the
        same."""
        return 1 + self.runs // len(BURSTS) * THREADS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    results, ends, alone = Results(args.results), time.monotonic() + args.seconds, {}
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "stress"
        subprocess.run(["gcc", "-O2", "-w", "-o", program, PROGRAMS / "stress.c", "-lpthread"],
                       check=True)
        while results.total["windows"] < args.windows and time.monotonic() < ends:
            command = [program, str(ROUNDS), str(results.seed)]
            if results.seed not in alone:
                alone = {results.seed: subprocess.run(command, check=True,
                                                      capture_output=True).stdout}
            burst = BURSTS[results.runs % len(BURSTS)]
            done = subprocess.run(
                [sys.executable, "-m", "pylbr", "record", "--engine", "native", "-F", str(RATE),
                 "--burst", str(burst), "--max-overhead", "100", "-o", Path(place) / "data", "--",
                 *command],
                capture_output=True, cwd=ROOT)
            said, expected = done.stderr.decode(), alone[results.seed]
            differs = (done.stdout, done.returncode) != (expected, 0)
            if differs:
                print(f"seed {results.seed}, burst {burst}: exit code {done.returncode}, "
                      f"{done.stdout!r}, not {expected!r}: {said[-300:]}", flush=True)
            results.add(counts_of(said), differs)
    print(f"{results.runs} runs, {results.differ} differ; "
          + ", ".join(f"{n:,} {why}" for why, n in results.total.items()))
    return 1 if results.differ or not results.total["windows"] else 0


if __name__ == "__main__":
    sys.exit(main())
