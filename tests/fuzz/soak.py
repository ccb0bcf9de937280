"""Mutants of the seeds of every target, in child processes, for as long as wanted.

    python -m tests.fuzz.soak --seconds 3600 --keep findings
    python -m tests.fuzz.soak --run 5 machine story

Each round runs as many mutants of each target as take about ten seconds.  `--run` chooses the
series: the same run gives the same mutants.  Exits with 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from tests.fuzz.harness import Finding, run_job
from tests.fuzz.targets import TARGETS, mutant

SECONDS_A_ROUND = 10


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.soak", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--run", type=int, default=int(time.time()), help="series of mutants")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write inputs of findings here")
    args = parser.parse_args(words)
    if set(args.targets) - set(TARGETS):
        parser.error(f"targets are {', '.join(TARGETS)}")
    names = args.targets or list(TARGETS)
    executions, accepted = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    rate = dict.fromkeys(names, 20.0)
    findings: list[Finding] = []
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        for name in names:
            target, at = TARGETS[name], executions[name]
            numbers = range(at, at + max(1, int(rate[name] * SECONDS_A_ROUND)))
            report = run_job(target, mutant(target, args.run), numbers)
            executions[name] += report.executions
            accepted[name] += report.other
            rate[name] = report.executions / max(report.seconds, 0.1)
            findings += report.findings
            for finding in report.findings:
                _keep(args.keep, finding)
            if time.monotonic() > end:
                break
    print(f"{date.today().isoformat()}, run {args.run}\n")
    print("| target | mutants | accepted |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {executions[name]:,} | {accepted[name]:,} |")
    print(f"\n{sum(executions.values()):,} executions, {len(findings)} findings")
    return 1 if findings else 0


def _keep(folder: Path | None, finding: Finding) -> None:
    print(f"{finding.target} {finding.variant}: {finding.what}", file=sys.stderr)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{finding.target}-{finding.variant}").write_bytes(finding.data)


if __name__ == "__main__":
    sys.exit(main())
