"""Record, replay, consume: a dynamically linked, position-independent program from end to end."""

from __future__ import annotations

import re
import sys

import pytest
from peer_tools import (
    VERSIONS,
    blocks,
    checked,
    fdata_edges,
    llvm_prof,
    need,
    perf,
    perf2bolt,
    profgen,
    totals,
)  # fmt: skip
from peer_workload import compile_c

from pylbr.cli import main
from pylbr.profile.aggregate import collect
from pylbr.profile.whole import collect_trace
from pylbr.trace import Writer, open_stacks
from pylbr.trace import open as open_trace

pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the program, its whole trace and samples of it.

    In the trace cycles are instructions, so that every block has IPC 1.
    """
    need("gcc")
    need("qemu-x86_64")
    place = tmp_path_factory.mktemp("pipeline")
    program = compile_c(
        "dynamic.c", place / "program", "-gdwarf-4", "-pie", "-fPIE",
        "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs", "-Wl,--build-id",
    )
    whole, samples = place / "recorded.arrow", place / "program.perf.data"
    checked(sys.executable, "-m", "pylbr", "record", "-q", "--full", "-o", whole, "--", program)
    with open_trace(whole) as source, \
            Writer(place / "program.arrow", source.metadata) as writer:
        for chunk in source.chunks():
            branches = chunk.branches.copy()
            branches["cycles"] = branches["instructions"]
            writer.write(branches)
    whole.unlink()
    assert main([
        "replay", str(place / "program.arrow"), "-e", "branches:u", "-c", "997", "-j", "any,u",
        "--cpu", "sapphire-rapids", "-o", str(samples),
    ]) == 0  # fmt: skip
    return place


@pytest.mark.parametrize("version", VERSIONS)
def test_bolt_takes_it_in_both_forms(place, version):
    data, binary = place / "program.perf.data", place / "program"
    assert perf2bolt(version, data, binary, place / f"{version}.fdata") == 0
    text = place / "program.preagg"
    words = ["-o", str(text), "--binary", str(binary), "--preagg-form", "branches"]
    assert main(["convert", str(data), *words]) == 0
    assert perf2bolt(version, text, binary, place / f"{version}.pa.fdata", "-pa") == 0
    ours, theirs = (fdata_edges(place / f"{version}{kind}") for kind in (".pa.fdata", ".fdata"))
    assert ours == theirs != {}
    assert any("compare" in edge for edge in theirs)


@pytest.mark.parametrize("version", VERSIONS)
def test_profgen_takes_it(place, version):
    out = place / f"{version}.prof"
    warnings = profgen(version, place / "program", out, perfdata=place / "program.perf.data")
    # The C library's start-up code in the program has no DWARF, and so no functions.
    assert [w for w in warnings if "do not belong to any functions" not in w] == []
    assert {"main", "compare", "hash"} <= totals(out.read_text()).keys()


def test_autofdo_takes_it_in_both_forms(place):
    data, binary = place / "program.perf.data", place / "program"
    assert main([
        "convert", str(data), "-o", str(place / "x.afdo.txt"), "--binary", str(binary)
    ]) == 0  # fmt: skip
    ours = llvm_prof(binary, place / "a", "--profiler=text", f"--profile={place / 'x.afdo.txt'}")
    theirs = llvm_prof(binary, place / "b", f"--profile={data}")
    assert ours == theirs
    assert {"main", "compare", "hash"} <= totals(theirs).keys()


def test_perfs_decoder_finds_one_instruction_a_cycle(place):
    ipc = blocks(place / "program.perf.data")
    assert len(ipc) > 10_000
    # A repeated string instruction is one to perf, and as many as its repetitions to QEMU.
    assert sum(value != 1.0 for value in ipc) < len(ipc) / 1000


def test_samples_show_branches_of_the_trace(place):
    with open_stacks(place / "program.perf.data") as stacks:
        sampled = collect(stacks)
    with open_trace(place / "program.arrow") as trace:
        whole = collect_trace(trace)
    # Processes are told apart by their number in samples only.
    edges = {(e["first"], e["last"]): int(e["count"]) for e in whole.edges}
    seen = {(e["first"], e["last"]): int(e["count"]) for e in sampled.edges}
    assert seen.keys() <= edges.keys() and sampled.broken == 0
    assert all(count <= edges[edge] for edge, count in seen.items())
    hot = max(edges, key=edges.__getitem__)
    share = edges[hot] / sum(edges.values())
    assert seen[hot] / sum(seen.values()) == pytest.approx(share, rel=0.2)


def test_report_names_the_functions(place, capsys):
    assert main(["report", str(place / "program.perf.data"), "--by", "functions"]) == 0
    text = capsys.readouterr().out
    assert re.search(r" compare +\S+/program$", text, re.M)
    assert re.search(r" \S+/libc\.so\.6$", text, re.M)


def test_perf_finds_the_same_functions(place):
    text = perf("report", "-i", place / "program.perf.data", "--no-branch-stack",
                "--sort", "symbol", "--stdio")  # fmt: skip
    with open_stacks(place / "program.perf.data") as stacks:
        profile = collect(stacks)
    ours = {f.function: f.samples for f in profile.functions() if f.path.endswith("/program")}
    for name in ("compare", "hash", "main"):
        share = float(re.search(rf"([0-9.]+)% +\[\.\] {name} ", text)[1])
        assert ours[name] / profile.samples * 100 == pytest.approx(share, abs=0.01)


def test_branch_history_of_perf(place):
    text = perf("report", "-i", place / "program.perf.data", "--branch-history", "--stdio")
    assert re.search(r"compare dynamic\.c:\d+ \(.*cycles:\d+\)", text)


def test_header_names_command_and_modules(place):
    data = place / "program.perf.data"
    assert "contains samples with branch stack" in perf("report", "-i", data, "--header-only")
    mapped = checked(need("perf"), "script", "-i", data, "--show-mmap-events", "-F", "ip")
    for name in ("/program", "/libc.so.6", "/ld-linux-x86-64.so.2"):
        assert re.search(rf"PERF_RECORD_MMAP2 .*{re.escape(name)}$", mapped, re.M)
