"""Rows of the profile engine: from perf.data to what compilers and BOLT read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pylbr import trace
from pylbr.bench.child import Cost, cost_of, first_of, pylbr, tool
from pylbr.bench.contest import Contender, Contest, Row, Setting
from pylbr.bench.programs import record
from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.optimize.bolt import find_bolt
from pylbr.perf.abi import BranchSample
from pylbr.perf.data_writer import PerfDataWriter
from pylbr.perf.stacks import Samples
from pylbr.record.engine import Request, engine
from pylbr.record.output import PerfDataOutput
from pylbr.record.parts import compiler

__all__ = ["ROWS", "perf2bolt_path", "recordings"]

_HERE: Final = Path(__file__).parent
#: One in so many branches, a prime: rather more samples than perf would take.
_PERIOD: Final = 499
_RUNS: Final = 40
_MEGABYTES: Final = {True: 16, False: 512}  # by `Setting.quick`, of each of two files
_ALONE: Final = {True: 16, False: 1024}  # of the one whose memory is measured
#: create_llvm_prof takes nine times the size of its input in memory.
_MODEST: Final = {True: 16, False: 128}


def program(directory: Path) -> Path:
    """The program that is recorded: with relocations, which BOLT wants, and DWARF 4, which
    AutoFDO reads.

    Raises
    ------
    UnsupportedFeature
        There is no C compiler.
    """
    words, target = compiler(), directory / "busy"
    if words is None:
        raise UnsupportedFeature("no C compiler")
    done = subprocess.run([*words, "-O2", "-gdwarf-4", "-fno-reorder-blocks-and-partition",
                           "-Wl,--emit-relocs", str(_HERE / "busy.c"), "-o", str(target)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnsupportedFeature(f"{words[-1]} fails: {done.stderr.strip()[-100:]}")
    return target


def recordings(directory: Path, files: int, size: int) -> tuple[Path, list[Path]]:
    """The program, and `files` recordings of it of `size` bytes each or a little more.

    A short recording under QEMU, its samples again and again; in each file once more than in the
    last, since the same bytes twice are refused as a mistake.

    Raises
    ------
    UnsupportedFeature
        There is no C compiler, or no QEMU with plugins.
    """
    binary, short = program(directory), directory / "short.perf.data"
    request = Request((str(binary), str(_RUNS)), period=_PERIOD)
    user_any = BranchSample.USER | BranchSample.ANY
    with PerfDataOutput(str(short), request, engine("qemu"), user_any, ()) as out:
        record(request, out)
    with trace.open_stacks(short) as source:
        metadata, records = source.metadata, list(source)
    samples = [one for one in records if isinstance(one, Samples)]
    head = [one for one in records if not isinstance(one, Samples)]
    times = -(-size // max(1, short.stat().st_size))
    made = []
    for number in range(files):
        made.append(directory / f"{number}.perf.data")
        with PerfDataWriter(made[-1], metadata) as writer:
            for one in head:
                writer.write(one)
            for _ in range(times + number):
                for batch in samples:
                    writer.write(batch)
    return binary, made


def perf2bolt_path() -> str:
    """The newest that is installed, with perf, which it calls.

    Raises
    ------
    UnsupportedFeature
        One of them is missing.
    """
    try:
        bolt = find_bolt()
    except CommandError as error:
        raise UnsupportedFeature(str(error)) from error
    tool("perf", "linux-perf")
    return str(bolt.folder / "perf2bolt")


def _cost(
    commands: Iterable[list[str]], directory: Path, part: Callable[[Cost], float]
) -> Callable[[], float]:
    """Seconds, or bytes, of some commands one after the other."""
    listed = list(commands)

    def run() -> float:
        return sum(part(cost_of(command, directory)) for command in listed)

    return run


def _elapsed(cost: Cost) -> float:
    return cost.elapsed


def fdata(setting: Setting) -> Contest:
    """Two recordings to one profile for BOLT, by two workers."""
    place = setting.directory
    binary, files = recordings(place, 2, _MEGABYTES[setting.quick] << 20)
    size = sum(path.stat().st_size for path in files)
    ours = [pylbr("merge", *files, "-o", place / "x.fdata", "--binary", binary, "--jobs", "2")]

    def theirs(perf2bolt: str) -> Callable[[], float]:
        return _cost(([perf2bolt, "-p", str(path), "-o", str(place / "y.fdata"), str(binary)]
                      for path in files), place, _elapsed)

    return Contest("bytes", Contender(_cost(ours, place, _elapsed), size), {
        "perf2bolt, one file after the other": Contender(
            first_of(perf2bolt_path, theirs), size, once=True)})


def autofdo(setting: Setting) -> Contest:
    """A recording to AutoFDO's text, beside AutoFDO from the same file."""
    place = setting.directory
    binary, (path,) = recordings(place, 1, _MODEST[setting.quick] << 20)
    size = path.stat().st_size
    ours = [pylbr("convert", path, "-o", place / "x.afdo.txt", "--binary", binary)]

    def theirs(create: str) -> Callable[[], float]:
        return _cost([[create, f"--binary={binary}", f"--profile={path}",
                       "--format=text", f"--out={place / 'y.prof'}"]], place, _elapsed)

    return Contest("bytes", Contender(_cost(ours, place, _elapsed), size), {
        "create_llvm_prof": Contender(
            first_of(lambda: tool("create_llvm_prof", "autofdo"), theirs), size, once=True)})


def memory(setting: Setting) -> Contest:
    """The most memory that the same takes."""
    place = setting.directory
    binary, (path,) = recordings(place, 1, _ALONE[setting.quick] << 20)

    def most(cost: Cost) -> float:
        return cost.memory / 1e6

    def perf2bolt(name: str) -> Callable[[], float]:
        return _cost([[name, "-p", str(path), "-o", str(place / "y.fdata"), str(binary)]], place,
                     most)

    def create(name: str) -> Callable[[], float]:
        return _cost([[name, f"--binary={binary}", f"--profile={path}",
                       "--format=text", f"--out={place / 'y.prof'}"]], place, most)

    ours = pylbr("convert", path, "-o", os.fspath(place / "x.afdo.txt"), "--binary", binary)
    others = {"perf2bolt, without its perf": Contender(
        first_of(perf2bolt_path, perf2bolt), once=True)}
    if setting.quick:
        others["create_llvm_prof"] = Contender(
            first_of(lambda: tool("create_llvm_prof", "autofdo"), create), once=True)
    return Contest("MB", Contender(_cost([ours], place, most)), others, kind="size")


ROWS: Final = (
    Row("profile.fdata", "perf.data to .fdata for BOLT", fdata),
    Row("profile.autofdo", "perf.data to AutoFDO's text", autofdo),
    Row("profile.memory", "memory for a profile of a recording", memory),
)
