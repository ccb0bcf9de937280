"""Windows with signals and faults at random points: does the program compute what it does alone?

    python -m tests.record.native.stress [--windows 10000000] [--seconds 3600]

Runs tests/record/native/programs/stress.c again and again at 50 kHz, until so many windows have
been made or the time is over, and compares what it prints.  Exit code 1: a run differed.
"""

from __future__ import annotations

import argparse
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


def counts_of(said):
    """Windows, and how many of them ended in a system call, a fault, ...: the recorder's lines."""
    counts = Counter()
    for windows, cut in re.findall(r"([\d,]+) windows, of which cut: (.*)", said):
        counts["windows"] += int(windows.replace(",", ""))
        for number, why in re.findall(r"([\d,]+) ([a-z ]+)", cut):
            counts[why.strip()] += int(number.replace(",", ""))
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=3600)
    args = parser.parse_args()
    total, runs, differ, ends = Counter(), 0, 0, time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as place:
        program = Path(place) / "stress"
        subprocess.run(["gcc", "-O2", "-w", "-o", program, PROGRAMS / "stress.c", "-lpthread"],
                       check=True)
        alone = subprocess.run([program], check=True, capture_output=True).stdout
        while total["windows"] < args.windows and time.monotonic() < ends:
            done = subprocess.run(
                [sys.executable, "-m", "pylbr", "record", "--engine", "native", "-F", str(RATE),
                 "--max-overhead", "100", "-o", Path(place) / "data", "--", program],
                capture_output=True, cwd=ROOT)
            runs += 1
            total.update(counts_of(done.stderr.decode()))
            if (done.stdout, done.returncode) != (alone, 0):
                differ += 1
                print(f"run {runs}: exit code {done.returncode}, {done.stdout!r}, not {alone!r}: "
                      f"{done.stderr.decode()[-300:]}", flush=True)
    print(f"{runs} runs, {differ} differ; " + ", ".join(f"{n:,} {why}" for why, n in total.items()))
    return 1 if differ or not total["windows"] else 0


if __name__ == "__main__":
    sys.exit(main())
