"""`python -m tests.faults.kills`: SIGKILL at random points of runs, which are then run again.

    python -m tests.faults.kills --kills 1000 --seed 5

After a kill the output's name must have what was there before or a whole new file, no process that
the run started may live on, and a process that was being recorded must.  The next run, of
`merge --resume` from the parts that there are, must write the same bytes as one that nothing
ended, and leave no temporary file of a killed one.  Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

from pylbr.perf.data_reader import PerfData
from pylbr.perf.stacks import Samples
from pylbr.trace.lbrt_file import LbrtTrace
from tests.faults.forked import HANG, OLD, Forked
from tests.faults.runs import RUNS, Run, inputs

KILLED = ("convert to parquet", "convert to lbrt", "replay", "merge --resume", "merge --jobs",
          "run", "run --save", "verify --jobs", "record", "record -p", "record --full")
_SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER: who lives on becomes a child of this process


def readable(path: Path) -> bool:
    """Whether a recording, two of which differ, is whole."""
    if path.suffix == ".lbrt":
        with LbrtTrace(path) as trace:
            rows = len(trace.read(0, trace.count))
            return rows == trace.count > 0
    with PerfData(path) as stacks:
        return sum(len(batch) for batch in stacks if isinstance(batch, Samples)) > 0


class Kills(Forked):
    """Runs that are killed."""

    def __init__(self, inputs: Path) -> None:
        super().__init__(inputs)
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)

    def whole(self, run: Run) -> tuple[bytes, float]:
        """What a run that nothing ends writes, and its seconds."""
        began = time.monotonic()
        code = self.wait(self.start(run))
        assert code == 0, (code, (self.folder / "error").read_text(errors="replace"))
        return self._output(run), time.monotonic() - began

    def _output(self, run: Run) -> bytes:
        path = self.folder / "work" / run.output
        return path.read_bytes() if path.is_file() else b""

    def kill(self, run: Run, seconds: float, wanted: bytes) -> tuple[bool, str]:
        """Whether it was killed before its end, and what was wrong after that."""
        output = self.folder / "work" / run.output
        if run.output:
            output.write_bytes(OLD)
        child = self.start(run)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = self._output(run)
        what = ""
        if run.output and found not in (OLD, wanted) and (run.same or not readable(output)):
            what = f"{len(found)} bytes under the final name"
        return code < 0, what or self._left()

    def _left(self) -> str:
        """A process of the killed run that lives on, or a target that does not."""
        end = time.monotonic() + HANG
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return "the process that was recorded is gone"
            if pid == self.target.pid:
                self.target.returncode = os.waitstatus_to_exitcode(status)
                return f"the process that was recorded ended with {self.target.returncode}"
            if pid:
                continue
            children = {int(pid) for task in Path("/proc/self/task").iterdir()
                        for pid in (task / "children").read_text().split()}
            children.discard(self.target.pid)
            if not children:
                return "" if self.goes_on() else "the process that was recorded stands still"
            if time.monotonic() > end:
                words = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children]
                for child in children:
                    os.kill(child, signal.SIGKILL)
                return f"lives on: {words}"
            time.sleep(0.002)

    def goes_on(self) -> bool:
        """Whether the target runs on: it is neither stopped nor traced."""
        status = Path(f"/proc/{self.target.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        return fields["State"][0] in "RSD" and fields["TracerPid"].strip() == "0"


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
        place = Path(made)
        inputs(place)
        kills = Kills(place)
        for number, name in enumerate(names):
            run = RUNS[name]
            kills.load(run)
            kills.clear()
            wanted, seconds = kills.whole(run)
            for _ in range((args.kills + number) // len(names)):
                killed, what = kills.kill(run, draw.uniform(0, seconds), wanted)
                counts[name] += killed
                if not what and draw.random() < 0.2:
                    again, _ = kills.whole(run)
                    what = "" if again == wanted or not run.same else "the next run writes others"
                    done[name] += 1
                    for part in (kills.folder / "work").glob("parts/*.json"):
                        part.unlink()  # the next ones begin from none
                if what:
                    findings += 1
                    print(f"{name}: {what}", file=sys.stderr, flush=True)
            again, _ = kills.whole(run)
            findings += run.same and again != wanted
            done[name] += 1
            left += sum(1 for _ in kills.folder.rglob(".*.part"))
            print(f"{name}: {counts[name]} kills", file=sys.stderr, flush=True)
        kills.close()
    print("| run | killed before the end | run again |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {counts[name]} | {done[name]} |")
    print(f"\n{date.today().isoformat()}, seed {args.seed}: {sum(counts.values())} kills, "
          f"{findings} findings, {left} temporary files left after them, "
          f"{time.monotonic() - began:.0f} seconds")
    return 1 if findings or left else 0


if __name__ == "__main__":
    sys.exit(main())
