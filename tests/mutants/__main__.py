"""Mutants of Cython and Python sources, killed by the nearest tests or not.

    python -m tests.mutants lbrcore/control.pyx               one file, all its mutants
    python -m tests.mutants --most 40 pylbr/trace/*.py         40 of each file, always the same
    python -m tests.mutants --results DIR FILE ...            continue what DIR has

Exits with 1 if a mutant survives that `tests/mutants/survivors.toml` does not explain.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.building import Copy
from tests.mutants.targets import INLINED_IN, nearest
from tests.mutants.weaving import Mutant

SURVIVORS = Path(__file__).with_name("survivors.toml")


@dataclass
class Report:
    """What became of the mutants of one file."""

    file: str
    killed: int = 0
    unreached: int = 0
    survived: list[Mutant] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.killed + len(self.survived)


def explained() -> dict[str, str]:
    """Key of a survivor -> why no test can or need kill it."""
    rows = tomllib.loads(SURVIVORS.read_text())["survivor"] if SURVIVORS.exists() else []
    return {row["key"]: row["reason"] for row in rows}


def attack(copy: Copy, files: list[str], tests: Sequence[str], most: int, seconds: float,
           results: Path) -> list[Report]:
    """Run `tests` against `most` mutants of each of `files` that `results` does not have yet."""
    own = copy.mutants
    done = {row["key"]: row for row in map(json.loads, results.read_text().splitlines())
            } if results.exists() else {}
    chosen = [number for file in files for number in sorted(
        (number for number, mutant in own.items() if mutant.file == file),
        key=lambda number: own[number].key)[:most]]
    switch, order = copy.place / "switch", copy.place / "order.json"
    switch.write_bytes(bytes(8 + max(own, default=0) + 1))
    order.write_text(json.dumps({"seconds": seconds, "mutants": {
        number: own[number].key for number in chosen if own[number].key not in done}}))
    environment = {**os.environ, "PYTHONPATH": f"{copy.place / 'site'}:{copy.place}",
                   "PYLBR_MUTANTS": str(switch), "PYLBR_MUTANTS_ORDER": str(order),
                   "PYLBR_MUTANTS_RESULTS": str(results), "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutants.running", "-p", "no:xdist",
         "-p", "no:cacheprovider", "-m", "not slow and not peer", *tests],
        cwd=copy.place, env=environment, capture_output=True, text=True)
    done = {row["key"]: row for row in map(json.loads, results.read_text().splitlines())
            } if results.exists() else {}
    if any(own[number].key not in done for number in chosen):
        raise RuntimeError(f"{files}: {ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    reports = {file: Report(file) for file in files}
    for number in chosen:
        row, report = done[own[number].key], reports[own[number].file]
        report.killed += row["killed"]
        report.unreached += row["tests"] == 0
        if not row["killed"]:
            report.survived.append(own[number])
    return list(reports.values())


def show(report: Report, known: dict[str, str]) -> int:
    """Print the report; how many survivors nothing explains."""
    print(f"{report.file}: {report.killed} of {report.total} killed, {report.unreached} reached "
          "by no test", flush=True)
    for mutant in report.survived:
        print(f"    {mutant.key} {mutant}\n        {known.get(mutant.key, 'NOT EXPLAINED')}",
              flush=True)
    return sum(mutant.key not in known for mutant in report.survived)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--most", type=int, default=1 << 30, help="mutants of each file")
    parser.add_argument("--seconds", type=float, default=30,
                        help="of tests per mutant, the quickest first")
    parser.add_argument("--tests", action="append", help="in place of the nearest")
    parser.add_argument("--results", type=Path, help="directory to keep results in, and to go on "
                        "from")
    options = parser.parse_args()
    known, start, reports, open_ = explained(), time.monotonic(), [], 0
    with tempfile.TemporaryDirectory(prefix="pylbr-mutants-") as folder:
        kept = options.results or Path(folder) / "results"
        kept.mkdir(parents=True, exist_ok=True)
        copy = Copy(Path(folder) / "tree", options.files, INLINED_IN)
        print(f"{len(copy.mutants)} mutants woven and built in {time.monotonic() - start:.0f} s",
              flush=True)
        groups: dict[tuple[str, ...], list[str]] = {}
        for file in options.files:
            groups.setdefault(nearest(file), []).append(file)
        for number, (tests, files) in enumerate(groups.items()):
            for report in attack(copy, files, options.tests or tests, options.most,
                                 options.seconds, kept / f"{number}.jsonl"):
                reports.append(report)
                open_ += show(report, known)
    killed, total = sum(r.killed for r in reports), sum(r.total for r in reports)
    print(f"{killed} of {total} killed ({killed / max(total, 1):.1%}), {open_} survivors not "
          f"explained, {time.monotonic() - start:.0f} s")
    return open_ > 0


if __name__ == "__main__":
    sys.exit(main())
