"""Profiles of the native engine beside the truth, which is the full trace.

    python -m tests.record.native.profiles PROGRAM [ARGUMENT ...]

PROGRAM is linked with -Wl,--emit-relocs.  The first table: overlap of edge profiles within the
program (the sum over all edges of the smaller share) for every k-th of the stacks, and for as many
branches drawn from the truth independently; then the same without the stacks that were cut, and of
stacks that are not weighed.  It comes twice: of stacks with a tick each, and of four per tick,
which follow each other closely; of these whole ticks are left out.  The last table: taken branches
of BOLT's program by each profile.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from bench.convergence import edges, overlap
from lbrcore import BranchClass
from pylbr import trace
from pylbr.files.elf import ElfImage
from pylbr.perf.stacks import Mmap, Samples
from tests.peers.peer_tools import LLVM, checked, perf2bolt
from tests.record.loop import taken

STRIDES = (300, 100, 30, 10, 3, 1)
DEPTH = 32
VERSION = 19


def own(image, path, mappings, addresses):
    """Link addresses in the program; 0 elsewhere."""
    found = np.zeros(len(addresses), "u8")
    for m in mappings:
        if m[3] == path:
            inside = (addresses >= m[0]) & (addresses < m[0] + m[1])
            link = image.link_address(m[2]) or 0
            found[inside] = addresses[inside] - np.uint64(m[0]) + np.uint64(link)
    return found


def truth_of(path, program):
    """Edges of the full trace within the program."""
    image, total = ElfImage(program), Counter()
    with trace.open(path) as source:
        mappings = [(m.start, m.size, m.file_offset, m.path) for m in source.metadata.modules]
        for chunk in source.chunks():
            rows = chunk.column("class") != BranchClass.NOT_TAKEN
            ends = [own(image, program, mappings, chunk.column(side)[rows])
                    for side in ("from", "to")]
            inside = (ends[0] > 0) & (ends[1] > 0)
            total.update(edges(*(end[inside] for end in ends)))
    return total


def stacks_of(path, program):
    """(from, to, weight, number of the stack, its length) of each branch within the program."""
    image, mappings, parts, number = ElfImage(program), [], [], 0
    with trace.open_stacks(path) as source:
        for record in source:
            if isinstance(record, Mmap):
                mappings.append((record.start, record.length, record.file_offset, record.path))
            elif isinstance(record, Samples):
                nr = np.diff(record.offsets)
                of = np.repeat(np.arange(len(record)), nr)
                parts.append((
                    own(image, program, mappings, record.entries["from"]),
                    own(image, program, mappings, record.entries["to"]),
                    record.period[of], of + number, nr[of]))
                number += len(record)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    inside = (columns[0] > 0) & (columns[1] > 0)
    return [column[inside] for column in columns], number


def convergence(truth, columns, number, burst):
    """Print the table of stacks of which so many share a tick."""
    source, target, weights, of, length = columns
    names, draw = list(truth), np.random.default_rng(1)
    shares = np.array([truth[name] for name in names], float)
    shares /= shares.sum()
    print(f"{len(truth):,} edges, {int(sum(truth.values())):,} branches in the truth; {burst} "
          "stacks per tick\n"
          "| stacks | branches in the program | overlap | independent draws |\n|---|---|---|---|")
    for stride in STRIDES:
        rows = of // burst % stride == stride // 2
        if rows.sum() < 10:
            continue
        ideal = Counter(dict(zip(names, draw.multinomial(rows.sum(), shares).tolist(),
                                 strict=True)))
        print(f"| {number // stride:,} | {rows.sum():,} | "
              f"{overlap(edges(source[rows], target[rows], weights[rows]), truth):.2%} | "
              f"{overlap(ideal, truth):.2%} |", flush=True)
    whole = length == DEPTH
    print(f"not weighed: {overlap(edges(source, target), truth):.2%}; without the "
          f"{len(np.unique(of[~whole])):,} cut ones: "
          f"{overlap(edges(source[whole], target[whole], weights[whole]), truth):.2%}; edges that "
          f"the truth has not: {len(set(edges(source, target)) - set(truth))}")


def optimised(program, place, profile):
    """BOLT's program by a profile."""
    data, better = place / f"{profile.name}.fdata", place / f"{profile.name}.bolt"
    wrong = perf2bolt(VERSION, profile, program, data)
    checked(LLVM[VERSION] / "llvm-bolt", program, "-o", better, f"-data={data}",
            "-reorder-blocks=ext-tsp", "-reorder-functions=hfsort", "-split-functions",
            "-split-all-cold")
    return better, wrong


def main():
    program, arguments = str(Path(sys.argv[1]).resolve()), sys.argv[2:]
    record = (sys.executable, "-m", "pylbr", "record", "-q")

    def run(*command):
        return subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL,
                              capture_output=True)

    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        alone = run(program, *arguments).stdout
        full, stacks, bursts, rare = (
            place / name for name in ("full.arrow", "stacks.data", "bursts.data", "rare.data"))
        run(*record, "--full", "-o", full, "--", program, *arguments)
        truth = truth_of(full, program)
        for path, hertz, burst in ((rare, 1000, 1), (bursts, 20_000, 4), (stacks, 20_000, 1)):
            run(*record, "--engine", "native", "-F", hertz, "--burst", burst, "--max-overhead", 100,
                "-o", path, "--", program, *arguments)
            if path != rare:
                convergence(truth, *stacks_of(path, program), burst)
        dense = place / "dense.data"
        run(*record, "-e", "taken", "-c", 509, "-o", dense, "--", program, *arguments)
        before = taken(program, *arguments)
        print("| profile | stacks | mismatching | taken branches |\n|---|---|---|---|\n"
              f"| none | | | {before:,} |")
        for name, profile in (
            ("one in 16 of all branches", dense), ("native, 20 kHz", stacks),
            ("native, 20 kHz, four per tick", bursts), ("native, 1 kHz", rare),
        ):
            better, wrong = optimised(program, place, profile)
            assert run(better, *arguments).stdout == alone
            after = taken(better, *arguments)
            print(f"| {name} | {stacks_of(profile, program)[1]:,} | {wrong} | {after:,} "
                  f"({after / before - 1:+.1%}) |", flush=True)


if __name__ == "__main__":
    main()
