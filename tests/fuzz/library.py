"""Random use of liblbrcore in one process (`library.c`), and digests of it over builds.

    python -m tests.fuzz.library --seconds 600          soak: all targets in turn, seed by seed
    python -m tests.fuzz.library --digest 1000000000    a long replay: compilers, chunks, threads

The first exits with 1 at a finding, the second if two digests differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

from tests.core.library import ROOT, generate

#: Target -> cases of a round: some seconds of each.
ROUND = {"events": 100_000, "image": 300_000, "state": 20_000, "migration": 1_000,
         "kinds": 300_000}
SANITIZERS = {
    "address": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-g", "-fsanitize=thread"),
}
ARM = ("aarch64-linux-gnu-gcc", "-static")


def build(folder: Path, compiler: tuple[str, ...] = ("gcc",), flags: tuple[str, ...] = ("-O2",),
          change: Callable[[str], str] | None = None) -> Path:
    """The program, compiled together with the library's C file, as `change` makes it."""
    source = generate(folder / "library")
    text = source / "lbrcore.c"
    if change is not None:
        text.write_text(change(text.read_text()))
    program = folder / "program"
    subprocess.run(
        [*compiler, *flags, "-w", f"-I{ROOT}/lbrcore/include", f"-I{ROOT}/lbrcore/library",
         f"-I{source}", Path(__file__).with_suffix(".c"), text, "-lpthread", "-o", program],
        check=True)
    return program


def run(program: Path, target: str, seed: int, count: int, threads: int = 1, chunk: int = 4096,
        emulator: tuple[str, ...] = ()) -> tuple[int, int, str]:
    """Executions, refusals, and the digest.

    Raises
    ------
    AssertionError
        With what was wrong, or what a sanitizer reported.
    """
    done = subprocess.run(
        [*emulator, program, target, str(seed), str(count), str(threads), str(chunk)],
        capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, (
        f"{target} {seed}: {done.returncode} {done.stdout} {done.stderr[-4000:]}")
    executions, refused, digest = done.stdout.split()
    return int(executions), int(refused), digest


def soak(program: Path, seconds: float, seed: int, threads: int) -> int:
    """All targets in turn; how many findings, at most one."""
    end, executions, refused = time.monotonic() + seconds, Counter(), Counter()
    finding = ""
    while time.monotonic() < end and not finding:
        for target, count in ROUND.items():
            try:
                done, no, _ = run(program, target, seed, count, threads)
            except AssertionError as error:
                finding = str(error)
                print(finding, file=sys.stderr)
                break
            executions[target] += done
            refused[target] += no
        seed += 1
    print("| target | executions | refused |\n|---|---|---|")
    for target in ROUND:
        print(f"| {target} | {executions[target]:,} | {refused[target]:,} |")
    print(f"\n{date.today().isoformat()}, up to seed {seed}: {sum(executions.values()):,} "
          f"executions, {int(bool(finding))} findings")
    return bool(finding)


def digests(folder: Path, count: int) -> dict[str, str]:
    """Digest of one long replay by build, chunk and threads."""
    found = {}
    builds = {"gcc": (("gcc",), ()), "clang-14": (("clang-14",), ()),
              "aarch64": (ARM, ("qemu-aarch64",))}
    for name, (compiler, emulator) in builds.items():
        if any(shutil.which(word) is None for word in (compiler[0], *emulator)):
            print(f"{name}: not installed", file=sys.stderr)
            continue
        (folder / name).mkdir()
        program = build(folder / name, compiler)
        for threads, chunk in ((1, 4096), (2, 7), (1, 65536)):
            if threads == 1 or name == "gcc":
                label = f"{name}, {threads} threads, {chunk} a chunk"
                found[label] = run(program, "replay", 1, count, threads, chunk, emulator)[2]
                print(f"{label}: {found[label]}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.library", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sanitizer", choices=SANITIZERS, help="build with it")
    parser.add_argument("--digest", type=int, metavar="BRANCHES")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if options.digest:
            return len(set(digests(Path(made), options.digest).values())) != 1
        flags = SANITIZERS[options.sanitizer] if options.sanitizer else ("-O2",)
        return soak(build(Path(made), flags=flags), options.seconds, options.seed, options.threads)


if __name__ == "__main__":
    sys.exit(main())
