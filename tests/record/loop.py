"""The loop closed: record a program, optimise it by the profile, and count what has become of
its taken branches.

    python -m tests.record.loop [SOURCE [ARGUMENT ...]]

prints the table of docs/record.md for a C program; $CFLAGS goes to every compiler.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lbrcore import BranchClass
from pylbr.record.engine import Request
from pylbr.record.wire_numbers import Counted
from tests.record.conftest import PROGRAMS, need

FLAGS = os.environ.get("CFLAGS", "").split()
PERIOD = 1009
_ROUNDS = 15


def run(*command):
    return subprocess.run([str(x) for x in command], check=True, capture_output=True, text=True,
                          timeout=200)


def tool(*names):
    found = next(filter(None, map(shutil.which, names)), None)
    need(found, f"none of {', '.join(map(str, names))}")
    return found


def record(program, *arguments):
    """``pylbr record -e taken`` of a program; its perf.data."""
    path = program.with_suffix(".data")
    run(sys.executable, "-m", "pylbr", "record", "-e", "taken", "-c", PERIOD, "-o", path, "--",
        program, *arguments)
    return path


@dataclass
class Outcome:
    """Programs before and after, and what the profile's maker said."""

    before: Path
    after: Path
    said: str


def bolt(version, directory, source, arguments=()):
    """gcc, and llvm-bolt on its program."""
    llvm = Path(f"/usr/lib/llvm-{version}/bin")
    perf2bolt, optimiser = tool(llvm / "perf2bolt"), tool(llvm / "llvm-bolt")
    before, after, profile = (directory / name for name in ("before", "after", "fdata"))
    run("gcc", "-O2", *FLAGS, "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs", "-o",
        before, source)
    said = run(perf2bolt, "-p", record(before, *arguments), "-o", profile, before)
    run(optimiser, before, "-o", after, f"-data={profile}", "-reorder-blocks=ext-tsp",
        "-reorder-functions=hfsort", "-split-functions", "-split-all-cold")
    return Outcome(before, after, said.stdout + said.stderr)


def profgen(directory, source, arguments=()):
    """clang, and its recompilation by llvm-profgen's profile."""
    maker, clang = tool("/usr/lib/llvm-16/bin/llvm-profgen"), tool("clang-14", "clang")
    before, after, profile = (directory / name for name in ("before", "after", "prof"))
    flags = ("-O2", *FLAGS, "-gdwarf-4", "-fdebug-info-for-profiling")
    run(clang, *flags, "-o", before, source)
    said = run(maker, f"--perfdata={record(before, *arguments)}", f"--binary={before}",
               f"--output={profile}", "--format=text")
    # Without this, clang believes __builtin_expect more than the profile.
    run(clang, *flags, f"-fprofile-sample-use={profile}", "-mllvm",
        "-overwrite-existing-weights", "-o", after, source)
    return Outcome(before, after, said.stdout + said.stderr + profile.read_text())


def autofdo(directory, source, arguments=()):
    """gcc 11, and its recompilation by AutoFDO's profile; later ones refuse create_gcov's."""
    maker, dumper, gcc = tool("create_gcov"), tool("dump_gcov"), tool("gcc-11")
    before, after, profile = (directory / name for name in ("before", "after", "afdo"))
    flags = ("-O2", *FLAGS, "-gdwarf-4")
    run(gcc, *flags, "-o", before, source)
    run(maker, f"--binary={before}", f"--profile={record(before, *arguments)}",
        f"--gcov={profile}", "--gcov_version=1")
    run(gcc, *flags, f"-fauto-profile={profile}", "-o", after, source)
    return Outcome(before, after, run(dumper, "--gcov_version=1", profile).stdout)


class _Counter:
    def __init__(self):
        self.taken = 0

    def record(self, record):
        pass

    def expect(self, count, kept, ended):
        pass

    def branches(self, task, branches):
        self.taken += int((branches["class"] != BranchClass.NOT_TAKEN).sum())
        return True


def taken(program, *arguments):
    """Taken branches of a run, every one counted."""
    from pylbr.bench.programs import record as record_quietly

    counter = _Counter()
    record_quietly(Request([str(program), *arguments], True, Counted.TAKEN), counter)
    return counter.taken


def _seconds(program, *arguments):
    start = time.perf_counter()
    run(program, *arguments)
    return time.perf_counter() - start


def main():
    source = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PROGRAMS / "layout.c"
    arguments = sys.argv[2:]
    ways = {"gcc 12, llvm-bolt 19": lambda *a: bolt(19, *a), "gcc 11, AutoFDO 0.19": autofdo,
            "clang 14, llvm-profgen 16": profgen}
    print("| program | compiler, optimiser | taken before | after | | native time |\n"
          "|---|---|---|---|---|---|")
    for name, way in ways.items():
        with tempfile.TemporaryDirectory() as directory:
            found = way(Path(directory), source, arguments)
            if run(found.before, *arguments).stdout != run(found.after, *arguments).stdout:
                raise SystemExit(f"{name}: another output")
            counts = [taken(x, *arguments) for x in (found.before, found.after)]
            times = [[_seconds(x, *arguments) for x in (found.before, found.after)]
                     for _ in range(_ROUNDS)]
            before, after = (statistics.median(x) * 1000 for x in zip(*times, strict=True))
            change = counts[1] / counts[0] - 1
            print(f"| {source.stem} | {name} | {counts[0]:,} | {counts[1]:,} | {change:+.1%} | "
                  f"{before:.1f} to {after:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
