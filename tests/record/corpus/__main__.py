"""Runs real programs alone and under the native recorder, and compares what they do.

    python -m tests.record.corpus [--hertz 1000 10000 50000] [--only WORD ...] [--jobs N]

A row a program: its runs under the recorder, those that gave another output or exit code than the
run without it, stacks, ticks without a window, and what a disassembler says of the stacks: edges
that are no branch of the code, and ranges that are not straight.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.record.native.stacks import complaints, read

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[2]
_SECONDS = 600
_RECORDED = re.compile(r"(?<!\S)@(?= |$)")
#: Stacks of a process that are disassembled: what repeats, repeats within them.
_JUDGED = 2000


@dataclass
class Result:
    """What became of a program."""

    name: str
    runs: int = 0
    stacks: int = 0
    entries: int = 0
    edges: int = 0
    ranges: int = 0
    lost: int = 0
    empty: int = 0
    differences: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    absent: str = ""


def programs() -> Iterator[tuple[str, str]]:
    """(name, command) of each."""
    text = (_HERE / "programs.txt").read_text()
    yield from re.findall(r"^([a-z+][^:\n]*): (.*)$", text, re.M)


def absent(command: str) -> str:
    """A program that the command records and the machine has not."""
    for word in re.findall(r"(?<!\S)@ (\$?[\w.+/-]+)", command):
        if not word.startswith(("$", "./")) and not shutil.which(word):
            return word
    for word in re.findall(r"^sh \$D/(\w+)\.sh", command):
        needed = {"redis": "redis-server", "nginx": "nginx"}[word]
        if not shutil.which(needed) or (word == "nginx" and not shutil.which("ab")):
            return needed
    return ""


def execute(command: str, text: Path, recorder: str) -> tuple[bytes, int, str]:
    """Output, exit code and standard error of a command in an empty directory."""
    environment = {
        **os.environ, "T": str(text), "D": str(_HERE), "P": str(_HERE.parent / "programs"),
        "PYTHON": os.path.realpath(sys.executable), "PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="corpus-") as place:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", _RECORDED.sub(recorder, command)], cwd=place,
            env=environment, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL,
        )
        output = done.stdout.replace(place.encode(), b"PLACE")
    return output, done.returncode, done.stderr.decode(errors="replace")


def examine(name: str, command: str, text: Path, rates: list[int]) -> Result:
    """Run a program once alone, and at each rate."""
    result = Result(name)
    result.absent = absent(command)
    if result.absent:
        return result
    alone = execute(command, text, "")
    again = execute(command, text, "") if rates else alone
    if alone[:2] != again[:2]:
        result.absent = "the same output twice"
        return result
    for hertz in rates:
        with tempfile.TemporaryDirectory(prefix="stacks-") as place:
            data = Path(place) / "data"
            recorder = (f"{sys.executable} -m pylbr record --engine native -F {hertz} "
                        f"--max-overhead 100 -o {data}.$RANDOM --")
            output, code, said = execute(command, text, recorder)
            result.runs += 1
            if "no stacks" in said:  # exit code 1 is the recorder's
                result.empty += 1
                code = alone[1] if code == 1 else code
            if (output, code) != alone[:2]:
                result.differences.append(
                    f"{hertz} Hz: exit code {alone[1]}, then {code}; output "
                    f"{alone[0][-80:]!r}, then {output[-80:]!r}; {said[-300:]!r}")
            for path in sorted(Path(place).iterdir()):
                _judge(path, result)
    return result


def _judge(path: Path, result: Result) -> None:
    found = read(path)
    result.stacks += found.count
    result.entries += len(found.edges())
    result.lost += found.lost
    for modules in found.modules.values():  # what the command has built is gone with its directory
        modules[:] = [m for m in modules if m.path[:1] != "/" or Path(m.path).exists()]
    for task, stacks in found.stacks.items():
        found.stacks[task] = stacks[:: -(-len(stacks) // _JUDGED)]
    edges, ranges, wrong = complaints(found)
    result.edges += edges
    result.ranges += ranges
    result.wrong += wrong


def main() -> int:
    """Exit code 1: something differs, or is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hertz", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--after", default="", metavar="NAME", help="leave out all up to this one")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    chosen = [(name, command) for name, command in programs()
              if not args.only or name in args.only]
    names = [name for name, _ in chosen]
    if args.after:
        chosen = chosen[names.index(args.after) + 1 :]
    results = []
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(args.jobs) as pool:
        text = Path(place) / "text"
        text.write_bytes(b"".join(b"%d %x\n" % (i * i % 99991, i * 77) for i in range(60_000)))
        for result in pool.map(lambda one: examine(*one, text, args.hertz), chosen):
            results.append(result)
            _tell(result)
    done = [r for r in results if not r.absent]
    bad = [r for r in done if r.differences or r.wrong]
    print(f"{len(done)} programs, {sum(r.runs for r in done)} runs, "
          f"{sum(r.stacks for r in done):,} stacks, {sum(r.entries for r in done):,} branches, "
          f"{sum(r.edges for r in done):,} distinct edges and {sum(r.ranges for r in done):,} "
          f"ranges checked; {sum(len(r.differences) for r in done)} runs that differ, "
          f"{sum(len(r.wrong) for r in done)} wrong; {len(results) - len(done)} programs absent")
    return 1 if bad else 0


def _tell(result: Result) -> None:
    if result.absent:
        print(f"{result.name:28} left out: no {result.absent}", flush=True)
        return
    print(f"{result.name:28} {result.runs} runs, {len(result.differences)} differ; "
          f"{result.stacks:7,} stacks, {result.lost:6,} ticks lost, {result.empty} empty; "
          f"{len(result.wrong)} wrong of {result.edges:,} + {result.ranges:,}", flush=True)
    for line in (*result.differences, *result.wrong[:3]):
        print(f"    {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
