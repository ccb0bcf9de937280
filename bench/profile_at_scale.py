"""Profiles of gigabytes of recordings: bytes per second, and the most memory of a process.

    python -m bench.profile_at_scale                         10 GB in 16 files
    python -m bench.profile_at_scale --gigabytes 1 --files 2 --beside

Recordings are made in a temporary directory ($TMPDIR) and removed.  With --beside, perf2bolt and
create_llvm_prof make the same of one file, the first; create_llvm_prof takes nine times its size
in memory.  Of processes that share busy processors only CPU seconds can be compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from pylbr.bench.child import cost_of, pylbr
from pylbr.bench.rows_profile import perf2bolt_path, recordings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--beside", action="store_true", help="measure the other tools, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pylbr-scale-") as name:
        place = Path(name)
        each = int(args.gigabytes * 1e9 / args.files)
        binary, files = recordings(place, args.files, each)
        size = sum(path.stat().st_size for path in files)
        print(f"{size / 1e9:.2f} GB in {len(files)} files; load {os.getloadavg()[0]:.1f}\n")
        print("what                     GB   seconds  CPU s   MB/s  MB per CPU s  most MB")
        shared = ["--binary", binary, "--jobs", str(args.jobs)]
        for form in (".fdata", ".afdo.txt", ".preagg"):
            show(f"pylbr merge, {form}", size, place,
                 pylbr("merge", *files, "-o", place / f"x{form}", *shared))
        if args.beside:
            first = files[0]
            show("perf2bolt", first.stat().st_size, place,
                 [perf2bolt_path(), "-p", first, "-o", place / "y.fdata", binary])
            show("create_llvm_prof", first.stat().st_size, place,
                 ["create_llvm_prof", f"--binary={binary}", f"--profile={first}", "--format=text",
                  f"--out={place / 'y.prof'}"])


def show(name: str, size: int, place: Path, command: list[str | Path]) -> None:
    """Run a command and print a row."""
    cost = cost_of(command, place)
    print(f"{name:22}{size / 1e9:6.2f}  {cost.elapsed:8.1f} {cost.cpu:6.1f} "
          f"{size / cost.elapsed / 1e6:6.0f}  {size / cost.cpu / 1e6:12.0f}  "
          f"{cost.memory / 1e6:7.0f}", flush=True)


if __name__ == "__main__":
    main()
