"""`python -m tests.faults`: the n-th call fails, for every n, in a short run of each command.

    python -m tests.faults                         every n of every fault of every run
    python -m tests.faults --most 3 --run replay   at most 3 n of each fault, of one run

A run should end as without fault, or with exit code 2, one line, and no file that was not there
before.  Exits with 1 if one does not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from tests.faults.harness import FAULTS, Faulty, judge, preload


def spread(count: int, most: int) -> list[int]:
    """At most so many of 1 ... `count`, the first and the last among them; of one, the middle."""
    if count <= most or most < 2:
        return list(range(1, count + 1)) if count <= most else [(count + 1) // 2]
    return sorted({1 + i * (count - 1) // (most - 1) for i in range(most)})


def main() -> int:
    from tests.faults.runs import RUNS, inputs

    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--most", type=int, default=1 << 30, help="n of each fault of each run")
    parser.add_argument("--run", action="append", choices=RUNS, help="default: all")
    parser.add_argument("--at", type=int, help="this n alone, with all that the run printed")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="default: all")
    args = parser.parse_args()
    findings, total, began = [], 0, time.monotonic()
    place = tempfile.mkdtemp()  # a child that ends must not remove it
    try:
        inputs(Path(place))
        faulty = Faulty(Path(place))
        print("| run | " + " | ".join(args.fault or FAULTS) + " |")
        for name in args.run or RUNS:
            run, cells = RUNS[name], []
            faulty.load(run)
            calls, whole = faulty.counted(run), faulty.outcome(run)
            assert whole.code == run.code, (whole.code, whole.error)
            for fault in args.fault or FAULTS:
                count = calls[FAULTS[fault][0]]
                fired = 0
                for n in [args.at] if args.at else spread(count, args.most):
                    found = faulty.outcome(run, fault, n)
                    fired += found.fired
                    if args.at:
                        print(found.code, found.out, found.error, sep="\n")
                    what = judge(run, whole, found, fault)
                    if not what and run.kept and found.code:
                        after = faulty.outcome(run, again=True)
                        if (after.code, after.files) != (whole.code, whole.files):
                            what = f"the next call: {after.code}, {after.error}"
                    if what:
                        findings.append(what)
                        print(f"{name}, {fault} {n}: {what}", file=sys.stderr, flush=True)
                total += fired
                cells.append(f"{fired}")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        faulty.close()
    finally:
        shutil.rmtree(place)
    print(f"\n{date.today().isoformat()}: {total:,} failed calls, {len(findings)} findings, "
          f"{time.monotonic() - began:.0f} seconds")
    return 1 if findings else 0


if __name__ == "__main__":
    preload()
    sys.exit(main())
