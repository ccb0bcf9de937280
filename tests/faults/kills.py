"""`python -m tests.faults.kills`: SIGKILL at random points of runs, which are then run again.

    python -m tests.faults.kills --kills 1000 --seed 5

After a kill the output's name must have what was there before or the whole new file.  The next run,
of `merge --resume` from the parts that there are, must write the same bytes as one that nothing
ended, and leave no temporary file of a killed one.  Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from tests.faults.runs import RUNS, Run, inputs

KILLED = ("convert to parquet", "convert to lbrt", "replay", "merge --resume")
_OLD = b"what was there before\n"


def started(run: Run, place: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The call, in `folder`."""
    words = [word.format(inputs=place) for word in run.words]
    return subprocess.Popen([sys.executable, "-m", "pylbr", *words], cwd=folder,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def whole(run: Run, place: Path, folder: Path) -> tuple[bytes, float]:
    """What a run that nothing ends writes, and its seconds."""
    began = time.monotonic()
    process = started(run, place, folder)
    _, error = process.communicate()
    assert process.returncode == 0, error
    return (folder / run.output).read_bytes(), time.monotonic() - began


def kill(run: Run, place: Path, folder: Path, seconds: float, wanted: bytes) -> tuple[bool, str]:
    """Whether it was killed before its end, and what was wrong after that."""
    output = folder / run.output
    output.write_bytes(_OLD)
    process = started(run, place, folder)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    found = output.read_bytes() if output.exists() else b""
    if found not in (_OLD, wanted):
        return True, f"{len(found)} bytes under the final name"
    return process.returncode < 0, ""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", action="append", choices=KILLED, help="default: all")
    args = parser.parse_args(words)
    draw, began, findings = random.Random(args.seed), time.monotonic(), 0
    names = args.run or KILLED
    counts, done, left = dict.fromkeys(names, 0), dict.fromkeys(names, 0), 0
    with tempfile.TemporaryDirectory() as made:
        place = Path(made, "inputs")
        place.mkdir()
        inputs(place)
        for number, name in enumerate(names):
            folder = Path(made, str(number))
            folder.mkdir()
            run = RUNS[name]
            wanted, seconds = whole(run, place, folder)
            for _ in range((args.kills + number) // len(names)):
                killed, what = kill(run, place, folder, draw.uniform(0, seconds), wanted)
                counts[name] += killed
                if not what and draw.random() < 0.2:
                    again, _ = whole(run, place, folder)
                    what = "" if again == wanted else "the next run writes other bytes"
                    done[name] += 1
                    for part in folder.glob("parts/*.json"):  # the next ones begin from none
                        part.unlink()
                if what:
                    findings += 1
                    print(f"{name}: {what}", file=sys.stderr)
            again, _ = whole(run, place, folder)
            findings += again != wanted
            done[name] += 1
            left += sum(1 for _ in folder.rglob(".*.part"))
    print("| run | killed before the end | run again |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {counts[name]} | {done[name]} |")
    print(f"\n{date.today().isoformat()}, seed {args.seed}: {sum(counts.values())} kills, "
          f"{findings} findings, {left} temporary files left after them, "
          f"{time.monotonic() - began:.0f} seconds")
    return 1 if findings or left else 0


if __name__ == "__main__":
    sys.exit(main())
