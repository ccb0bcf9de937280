"""Do a few native stacks optimise a program as much as all of its branches do?

    python -m tests.record.gain [--only WORD] SOURCE [SOURCE ...] [-- ARGUMENT ...]

prints for three optimisers the taken branches of the program before, after by every taken branch
(under QEMU), and after by one native recording, all counted by full traces: rows of the table in
docs/record.md.  $CFLAGS goes to every compiler, $LIBS to every linker.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pylbr.perf.stacks import Samples
from pylbr.trace import open_stacks
from tests.record.loop import FLAGS, taken, tool

LIBS = os.environ.get("LIBS", "").split()
HERTZ = 10_000
#: Every taken branch is in a stack.
WHOLE = ("-e", "taken", "-c", 32)
NATIVE = ("--engine", "native", "-F", HERTZ, "--max-overhead", 100)


class Bolt:
    """gcc, and llvm-bolt on its program."""

    title, suffix = "gcc, llvm-bolt 19", ".preagg"

    def build(self, sources, path):
        run(tool("g++" if is_cpp(sources) else "gcc"), "-O2", *FLAGS,
            "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs", "-o", path, *sources, *LIBS)

    def optimise(self, sources, before, sums, path):
        llvm, data = Path("/usr/lib/llvm-19/bin"), path.with_suffix(".fdata")
        run(tool(llvm / "perf2bolt"), "-pa", "-p", sums, "-o", data, before)
        run(tool(llvm / "llvm-bolt"), before, "-o", path, f"-data={data}",
            "-reorder-blocks=ext-tsp", "-reorder-functions=hfsort", "-split-functions",
            "-split-all-cold")


class Profgen:
    """clang, and its recompilation by llvm-profgen's profile."""

    title, suffix = "clang 14, llvm-profgen 16", ".profgen.txt"

    def build(self, sources, path, *more):
        run(tool("clang++-14" if is_cpp(sources) else "clang-14"), "-O2", *FLAGS, "-gdwarf-4",
            "-fdebug-info-for-profiling", *more, "-o", path, *sources, *LIBS)

    def optimise(self, sources, before, sums, path):
        data = path.with_suffix(".prof")
        run(tool("/usr/lib/llvm-16/bin/llvm-profgen"), f"--unsymbolized-profile={sums}",
            f"--binary={before}", f"--output={data}", "--format=text")
        self.build(sources, path, f"-fprofile-sample-use={data}", "-mllvm",
                   "-overwrite-existing-weights")


class AutoFdo:
    """gcc 11, and its recompilation by AutoFDO's profile; later ones refuse create_gcov's."""

    title, suffix = "gcc 11, AutoFDO 0.19", ".afdo.txt"

    def build(self, sources, path, *more):
        run(tool("g++-11" if is_cpp(sources) else "gcc-11"), "-O2", *FLAGS, "-gdwarf-4", *more,
            "-o", path, *sources, *LIBS)

    def optimise(self, sources, before, sums, path):
        data = path.with_suffix(".afdo")
        run(tool("create_gcov"), f"--binary={before}", f"--profile={sums}", "--profiler=text",
            f"--gcov={data}", "--gcov_version=1")
        self.build(sources, path, f"-fauto-profile={data}")


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL)


def is_cpp(sources):
    return any(path.suffix in (".cc", ".cpp") for path in sources)


def pylbr(*arguments):
    run(sys.executable, "-m", "pylbr", *arguments)


def stacks_in(path):
    """Number of stacks, and of branches in them."""
    with open_stacks(path) as source:
        found = [(len(record), int(np.diff(record.offsets).sum())) for record in source
                 if isinstance(record, Samples)]
    return tuple(map(sum, zip(*found, strict=True)))


def gains(way, place, sources, arguments=()):
    """Taken branches before, and for every branch and for native stacks (stacks, branches in
    them, taken branches after)."""
    before = place / "before"
    way.build(sources, before)
    output = run(before, *arguments).stdout
    found = []
    for name, options in (("whole", WHOLE), ("native", NATIVE)):
        data, sums, after = (place / f"{name}{end}" for end in (".data", way.suffix, ""))
        pylbr("record", "-q", *options, "-o", data, "--", before, *arguments)
        pylbr("convert", "--binary", before, "--preagg-form", "branches", data, "-o", sums)
        counts = stacks_in(data)
        data.unlink()
        way.optimise(sources, before, sums, after)
        if run(after, *arguments).stdout != output:
            raise SystemExit(f"{way.title}: another output")
        found.append((*counts, taken(after, *arguments)))
    return taken(before, *arguments), *found


def main():
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="the optimiser whose name has this in it")
    parser.add_argument("sources", nargs="+", type=lambda name: Path(name).resolve())
    args, arguments = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1:]
    for way in (Bolt(), AutoFdo(), Profgen()):
        if args.only not in way.title:
            continue
        with tempfile.TemporaryDirectory() as directory:
            try:
                before, whole, native = gains(way, Path(directory), args.sources, arguments)
            except subprocess.CalledProcessError as error:
                lines = [line for line in error.stderr.splitlines() if "error" in line]
                print(f"| {way.title} | {Path(error.cmd[0]).name} fails: {lines[:1]} |", flush=True)
                continue
        changes = [100 * (after / before - 1) for *_, after in (whole, native)]
        print(f"| {way.title} | {before:,} | {whole[1]:,}: {changes[0]:+.1f} % | {native[0]:,} "
              f"stacks: {changes[1]:+.1f} % | {changes[1] - changes[0]:+.1f} |", flush=True)


if __name__ == "__main__":
    main()
