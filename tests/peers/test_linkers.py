"""Recordings of programs from every linker: the consumers make the same of each."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from peer_tools import LLVM, checked, fdata_edges, llvm_prof, need, profgen, run, totals

from tests.record.linkers import LINKERS

pytestmark = [pytest.mark.peer, pytest.mark.slow]

HERE = Path(__file__).parent
FUNCTIONS = ("next", "add", "mix", "pick", "step", "fib", "loop")
#: Where dynamic loaders or libc's start differ, samples fall a little differently.
ALIKE = 0.95
#: Each beside GNU ld's program of the same object file.
PAIRS = [(name, model) for name, (_, *flags) in LINKERS.items()
         for model in ["gnu" if {"-pie", "-static-pie"} & set(flags) else "gnu-no-pie"]
         if name != model]


@dataclass(frozen=True)
class Recorded:
    program: Path
    data: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one object file each for code that may lie anywhere, and that may not."""
    place = tmp_path_factory.mktemp("linkers")
    for name, flag in (("pie", "-fPIE"), ("no-pie", "-fno-pie")):
        checked(need("gcc"), "-O1", "-gdwarf-4", "-fno-reorder-blocks-and-partition", flag, "-c",
                "-o", place / f"{name}.o", HERE / "linked.c")  # fmt: skip
    return place


@pytest.fixture(scope="module")
def recorded(place):
    """Recordings by linker, made as they are asked for."""
    known = {}

    def make(linker):
        if linker not in known:
            known[linker] = record(place, linker)
        return known[linker]

    return make


def record(place, linker):
    compiler, *flags = LINKERS[linker]
    for tool in (compiler, *(t for t in ("ld.gold", "mold") if t.endswith(linker))):
        need(tool)
    if linker.startswith("lld"):
        need("ld.lld-14")
    need("qemu-x86_64")
    place_free = "-pie" in flags or "-static-pie" in flags
    source = place / ("pie.o" if place_free else "no-pie.o")
    program, data = place / linker, place / f"{linker}.data"
    checked(need(compiler), *flags, "-Wl,--emit-relocs", "-Wl,--build-id", "-o", program, source,
            "-w")  # fmt: skip
    checked(sys.executable, "-m", "pylbr", "record", "-q", "-e", "taken", "-c", 211, "-o", data,
            "--", program)  # fmt: skip
    return Recorded(program, data)


def overlap(one, other):
    """Share of weight that two {key: count} have in common."""
    sums = sum(one.values()), sum(other.values())
    assert min(sums) > 1000
    return sum(min(one.get(key, 0) / sums[0], other.get(key, 0) / sums[1]) for key in one)


def bolt_profile(recording):
    """Edges between our functions as perf2bolt finds them, none of them mismatching."""
    out = f"{recording.data}.fdata"
    done = run(need(LLVM[19] / "perf2bolt"), "-p", recording.data, "-o", out, recording.program)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "traces mismatching disassembled function contents: 0" in text, text
    # Those outside are libc's and the loader's.
    assert float(re.search(r"unknown regions: \d+ \(([\d.]+)%\)", text)[1]) < 25, text
    return {edge: count for edge, (_, count) in fdata_edges(out).items()
            if edge[0] in FUNCTIONS and edge[2] in FUNCTIONS}


@pytest.mark.parametrize(("linker", "model"), PAIRS)
def test_bolt(recorded, linker, model):
    need("perf")
    assert overlap(bolt_profile(recorded(model)), bolt_profile(recorded(linker))) > ALIKE


def profgen_profile(recording):
    out = Path(f"{recording.data}.prof")
    need("perf")
    profgen(19, recording.program, out, perfdata=recording.data)
    return own(totals(out.read_text()))


def own(counts):
    found = {name: count for name, count in counts.items() if name in FUNCTIONS}
    assert set(found) >= {"next", "step", "fib", "loop"}
    return found


@pytest.mark.parametrize(("linker", "model"), PAIRS)
def test_profgen(recorded, linker, model):
    assert overlap(profgen_profile(recorded(model)), profgen_profile(recorded(linker))) > ALIKE


def autofdo_profile(recording, text):
    out, source, options = f"{recording.data}.afdo", recording.data, []
    if text:
        source, options = f"{recording.data}.afdo.txt", ["--profiler=text"]
        checked(sys.executable, "-m", "pylbr", "convert", recording.data, "-o", source,
                "--binary", recording.program)  # fmt: skip
    return own(totals(llvm_prof(recording.program, out, *options, f"--profile={source}")))


@pytest.mark.parametrize(("linker", "model"), PAIRS)
def test_autofdo(recorded, linker, model):
    """AutoFDO 0.19 takes file offsets for addresses; for lld and mold it needs our text."""
    text = linker.startswith(("lld", "mold"))
    model = autofdo_profile(recorded(model), False)
    assert overlap(model, autofdo_profile(recorded(linker), text)) > ALIKE
