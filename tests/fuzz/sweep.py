"""All 255 changes of every byte of a small file of each form, in child processes.

    python -m tests.fuzz.sweep                     every form, about 20 minutes on one core
    python -m tests.fuzz.sweep arrow state

A form with checksums must refuse a change or read as before it; every form must end in a result or
a documented error.  Exits with 1 if one does otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date

from tests.fuzz.harness import Report, Target, run_job
from tests.fuzz.targets import TARGETS, change

#: What has a file or an image of its own.
FORMS = ("arrow", "parquet", "lbrt", "state", "core", "machine", "perf.data", "perfscript",
         "itrace", "csv", "drmemtrace", "champsim", "cbp2025", "xsave")


def sweep(target: Target, seed: int, every: int = 1) -> Report:
    """Every `every`-th of the changes of one seed."""
    variant = change(target, seed)
    count = 255 * len(target.seeds()[seed])
    numbers = range(-(-count // every))
    return run_job(target, lambda n: variant(n * every), numbers, checked=target.checked)


def row(report: Report, size: int, checked: bool) -> str:
    """A line of the table in docs/reliability.md."""
    wrong = sum("reads otherwise" in f.what for f in report.findings)
    crashes = sum("process" in f.what or "hangs" in f.what for f in report.findings)
    other = len(report.findings) - wrong - crashes
    return (f"| {report.target} | {size:,} | {report.executions:,} | {report.refused:,} | "
            f"{report.same + report.other - wrong:,} | {wrong if checked else 'n/a'} | {crashes} | "
            f"{other} | {report.seconds:.0f} |")


HEAD = ("| form | bytes | changes | refused | accepted | wrong | crashes, hangs | other exceptions "
        "| seconds |\n|---|---|---|---|---|---|---|---|---|")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.sweep", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forms", nargs="*", metavar="FORM", help=f"of {', '.join(FORMS)}")
    parser.add_argument("--every", type=int, default=1, help="only every N-th change")
    args = parser.parse_args(words)
    if set(args.forms) - set(FORMS) or args.every < 1:
        parser.error(f"forms are {', '.join(FORMS)}; --every is 1 or more")
    print(f"{date.today().isoformat()}\n\n{HEAD}", flush=True)
    findings = []
    for name in args.forms or FORMS:
        target = TARGETS[name]
        for seed, data in enumerate(target.seeds() if target.checked else target.seeds()[:1]):
            report = sweep(target, seed, args.every)
            findings += report.findings
            print(row(report, len(data), target.checked), flush=True)
    for finding in findings:
        print(f"{finding.target} {finding.variant}: {finding.what}", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
