"""perf, BOLT, llvm-profgen and AutoFDO take our files, and say the numbers that we count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from peer_tools import (
    BOLTS,
    LLVM,
    VERSIONS,
    blocks,
    checked,
    fdata_edges,
    llvm_prof,
    need,
    perf,
    perf2bolt,
    profgen,
    run,
    totals,
)  # fmt: skip
from peer_workload import EVENT, METADATA, PID, compile_c, record, sample

from lbrcore import BranchClass
from pylbr.files.elf import ElfImage
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.script_writer import PerfScript, write_perf_script
from pylbr.perf.stacks import Samples, Stacks
from pylbr.profile.aggregate import collect
from pylbr.profile.autofdo import write_autofdo
from pylbr.profile.link import OUTSIDE, link_profile
from pylbr.profile.preagg import FORMS, preagg_lines, write_preagg

pytestmark = [pytest.mark.peer, pytest.mark.slow]

PERIOD = 7
#: Samples of the damaged files.
DAMAGED = 700


@dataclass(frozen=True)
class Recorded:
    """Samples of the workload, and their file."""

    binary: Path
    samples: Samples
    stream: tuple
    data: Path
    place: Path

    @property
    def profile(self):
        return collect(self.stream[1])


@pytest.fixture(scope="module")
def good(workload, tmp_path_factory) -> Recorded:
    place = tmp_path_factory.mktemp("good")
    samples = sample(workload, PERIOD)
    stream = workload.stream(samples)
    write_perf_data(place / "perf.data", stream)
    return Recorded(workload.binary, samples, stream, place / "perf.data", place)


@pytest.mark.parametrize("version", BOLTS)
def test_bolt_finds_no_mismatch_and_counts_our_edges(good, workload, version):
    fdata = good.place / f"{version}.fdata"
    assert perf2bolt(version, good.data, good.binary, fdata) == 0
    image = ElfImage(good.binary)
    ours = {
        (*image.function_at(first), *image.function_at(last)): (mispredicted, count)
        for (first, last), (count, mispredicted)
        in link_profile(good.profile, good.binary).edges.items()
    }  # fmt: skip
    theirs = fdata_edges(fdata)
    starts = image.functions()

    def address(edge):
        return starts[edge[0]][0] + edge[1]

    reported = set(ours)
    if version > 16:  # newer ones keep no returns
        returns = set(workload.taken["from"][workload.taken["class"] == BranchClass.NEAR_RET])
        reported = {edge for edge in ours if address(edge) not in returns}
    assert {edge: theirs.get(edge) for edge in reported} == {e: ours[e] for e in reported}


@pytest.mark.parametrize("version", BOLTS)
def test_bolt_makes_the_same_of_preaggregated_text(good, version):
    out = good.place / f"{version}"
    write_preagg(f"{out}.preagg", link_profile(good.profile, good.binary), "branches")
    assert perf2bolt(version, f"{out}.preagg", good.binary, f"{out}.pa.fdata", "-pa") == 0
    perf2bolt(version, good.data, good.binary, f"{out}.fdata")
    assert fdata_edges(f"{out}.pa.fdata") == fdata_edges(f"{out}.fdata") != {}


@pytest.mark.parametrize("form", FORMS)
def test_newer_bolt_makes_the_same_of_both_preaggregated_forms(good, form):
    """Trace lines have no mispredicts; the counts are the same."""
    out = good.place / f"22.{form}"
    write_preagg(f"{out}.preagg", link_profile(good.profile, good.binary), form)
    assert perf2bolt(22, f"{out}.preagg", good.binary, f"{out}.fdata", "-pa") == 0
    perf2bolt(22, good.data, good.binary, f"{out}.perf.fdata")
    ours, theirs = fdata_edges(f"{out}.fdata"), fdata_edges(f"{out}.perf.fdata")
    if form == "traces":
        ours, theirs = ({edge: count for edge, (_, count) in table.items()}
                        for table in (ours, theirs))  # fmt: skip
    assert ours == theirs != {}


def test_newer_bolt_looks_at_no_build_id_and_drops_returns_from_outside(good):
    """Why every place outside is X:0, and no line is R."""
    linked = link_profile(good.profile, good.binary)

    def fdata(name, lines):
        path = good.place / f"22.{name}.preagg"
        path.write_text("".join(f"{line}\n" for line in lines))
        assert perf2bolt(22, path, good.binary, f"{path}.fdata", "-pa") == 0
        return fdata_edges(f"{path}.fdata")

    inside = next(edge for edge in linked.edges if OUTSIDE not in edge)
    first, last = (f"{address:x}" for address in inside)
    lines = [*preagg_lines(linked), f"T X:0 {last} ffffffffffffffff 1000003"]
    known = fdata("known", lines)
    foreign = [line.replace("X:0", f"{'5a' * 20}:{first}") for line in lines]
    assert fdata("foreign", foreign) != known
    returned = [*lines[:-1], lines[-1].replace("T", "R", 1)]
    counts = [sum(count for _, count in table.values())
              for table in (known, fdata("returned", returned))]  # fmt: skip
    assert counts[0] - counts[1] >= 1000003


@pytest.mark.parametrize("version", BOLTS)
def test_bolt_lays_out_a_program_that_runs_and_branches_less(good, workload, version, tmp_path):
    perf2bolt(version, good.data, good.binary, tmp_path / "fdata")
    bolted = tmp_path / "bolted"
    said = checked(need(LLVM[version] / "llvm-bolt"), good.binary, "-o", bolted,
                   f"-data={tmp_path / 'fdata'}", "-reorder-blocks=ext-tsp",
                   "-reorder-functions=hfsort", "-split-functions", "-split-all-cold",
                   "-dyno-stats")  # fmt: skip
    assert "100.0%) have non-empty execution profile" in said
    assert run(bolted).returncode == run(good.binary).returncode
    stepper = compile_c("step.c", tmp_path / "step")
    assert len(record(bolted, stepper, tmp_path / "rips").taken) < len(workload.taken)


@pytest.mark.parametrize("version", VERSIONS)
def test_profgen_has_nothing_to_warn_of(good, version):
    out = good.place / f"{version}.prof"
    assert profgen(version, good.binary, out, perfdata=good.data) == []
    counts = totals(out.read_text())
    assert {"next", "step", "fib"} <= counts.keys() and min(counts.values()) > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_profgen_makes_the_same_of_perf_script_text(good, version):
    text, out = good.place / "x.perfscript", good.place / f"{version}.text.prof"
    write_perf_script(text, Stacks(*good.stream))
    assert profgen(version, good.binary, out, perfscript=text) == []
    profgen(version, good.binary, f"{out}2", perfdata=good.data)
    assert out.read_text() == Path(f"{out}2").read_text() != ""


def test_autofdo_makes_the_same_of_perf_data_and_text(good):
    binary = llvm_prof(good.binary, good.place / "a", f"--profile={good.data}")
    write_autofdo(good.place / "af.txt", link_profile(good.profile, good.binary))
    text = llvm_prof(good.binary, good.place / "b", "--profiler=text",
                     f"--profile={good.place / 'af.txt'}")  # fmt: skip
    counts = totals(binary)
    assert {"run", "next", "step", "fib"} <= counts.keys() and min(counts.values()) > 0
    assert text == binary


def test_create_gcov_writes_a_profile(good):
    out = good.place / "x.afdo"
    checked(need("create_gcov"), f"--binary={good.binary}", f"--profile={good.data}",
            f"--gcov={out}", "--gcov_version=1")  # fmt: skip
    dump = checked(need("dump_gcov"), "--gcov_version=1", out)
    counts = dict(re.findall(r"^(\w+) total:(\d+)", dump, re.M))
    assert {"run", "next", "step", "fib"} <= counts.keys()


def test_perf_counts_our_edges(good):
    text = perf("script", "-i", good.data, "-F", "brstack")
    theirs: dict[tuple[int, int], int] = {}
    for first, last in re.findall(r"0x([0-9a-f]+)/0x([0-9a-f]+)/", text):
        edge = int(first, 16), int(last, 16)
        theirs[edge] = theirs.get(edge, 0) + 1
    edges = good.profile.edges
    assert theirs == {(e["first"], e["last"]): e["count"] for e in edges}
    assert edges["count"].sum() == len(good.samples.entries)


def test_perf_prints_what_we_print(good):
    for fields in ("ip,brstack", "comm,pid,tid,time,period,event,ip,brstack", "pid,ip,brstack"):
        script = PerfScript(METADATA, fields.split(","), mmap_events=True, task_events=True)
        ours = b"".join(script.text(record) for record in good.stream[1]).decode()
        theirs = perf("script", "-i", good.data, "-F", fields, "--show-mmap-events",
                      "--show-task-events")  # fmt: skip
        assert ours == theirs


def test_perfs_decoder_finds_one_instruction_a_cycle(good):
    # Cycles are instruction counts; the oldest entry of a stack ends no block.
    ipc = blocks(good.data)
    assert len(ipc) == len(good.samples.entries) - len(good.samples)
    assert set(ipc) == {1.0}


def test_perf_report_shows_branch_history(good):
    text = perf("report", "-i", good.data, "--branch-history", "--stdio")
    assert "of event 'branches:u'" in text
    assert re.search(r"--.*%--.*\((COND|RET|CALL|IND_CALL|IND|UNCOND)", text), text[:3000]
    assert re.search(r"run\.constprop\.0 workload\.c:\d+ \(.*cycles:\d+\)", text)


def test_perf_report_sorts_by_source_line_and_mispredict(good):
    text = perf("report", "-i", good.data, "--sort", "srcline_from,srcline_to,mispredict",
                "--stdio")  # fmt: skip
    assert re.search(r"workload\.c:\d+\s+workload\.c:\d+\s+N", text)
    assert re.search(r"workload\.c:\d+\s+workload\.c:\d+\s+Y", text)


def test_perf_annotate_marks_branches(good):
    text = perf("annotate", "-i", good.data, "--stdio", "-s", "step")
    assert re.search(r"jmp +\*%rax.*# -\d+\.\d+%.*p:\d+\.\d+%", text)


def test_perf_reads_header_and_build_id(good):
    header = perf("report", "-i", good.data, "--header-only")
    assert "arch : x86_64" in header and "cmdline : pylbr replay workload" in header
    assert f"name = {EVENT.name}" in header and "contains samples with branch stack" in header
    image = ElfImage(good.binary)
    assert perf("buildid-list", "-i", good.data).split() == [
        image.build_id.hex(), str(good.binary),
    ]  # fmt: skip
    assert f"{PID}/{PID}" in perf("script", "-i", good.data, "--show-mmap-events", "-F", "pid,tid")


# ------------------------------------------------------------- damage must show


def doubled(entries):
    return np.concatenate([entries[:, :1], entries[:, :-1]], axis=1)


def dropped(entries):
    return np.concatenate([entries[:, :15], entries[:, 16:], entries[:, -1:]], axis=1)


def oldest_first(entries):
    return entries[:, ::-1].copy()


def from_plus_1(entries):
    moved = entries.copy()
    moved["from"] += np.uint64(1)
    return moved


@pytest.fixture(scope="module", params=[doubled, dropped, oldest_first, from_plus_1])
def damaged(request, good, workload, tmp_path_factory):
    """The name of the damage, and the file."""
    place = tmp_path_factory.mktemp("damaged")
    entries = request.param(good.samples.entries.reshape(-1, 32)[:DAMAGED])
    samples = Samples.build(
        good.samples.offsets[: DAMAGED + 1], entries.reshape(-1), ip=good.samples.ip[:DAMAGED],
        pid=PID, tid=PID, time=good.samples.time[:DAMAGED],
    )  # fmt: skip
    stream = workload.stream(samples)
    write_perf_data(place / "perf.data", stream)
    return request.param.__name__, Recorded(
        good.binary, samples, stream, place / "perf.data", place
    )


@pytest.mark.parametrize("version", BOLTS)
def test_bolt_sees_damage(damaged, version):
    name, bad = damaged
    mismatches = perf2bolt(version, bad.data, bad.binary, bad.place / f"{version}.fdata")
    least = {"doubled": 100, "dropped": 100, "oldest_first": 10_000, "from_plus_1": 100}
    assert mismatches > least[name]


@pytest.mark.parametrize("version", VERSIONS)
def test_profgen_sees_damage(damaged, version):
    name, bad = damaged
    warnings = " ".join(profgen(version, bad.binary, bad.place / "prof", perfdata=bad.data))
    expected = {
        "doubled": "range start after or too far from range end|cross function boundaries",
        "dropped": "range start after or too far from range end|cross function boundaries",
        "oldest_first": "range start after or too far from range end|cross function boundaries",
        "from_plus_1": "not on instruction boundary",
    }
    assert re.search(expected[name], warnings), warnings


def test_perfs_decoder_sees_damage(damaged):
    name, bad = damaged
    ipc = blocks(bad.data)
    assert len(ipc) < len(bad.samples.entries) - len(bad.samples) or set(ipc) != {1.0}


def test_our_own_count_sees_damage(good, damaged):
    name, bad = damaged
    if name == "from_plus_1":
        assert not set(bad.profile.edges["first"]) & set(good.profile.edges["first"])
    else:
        assert bad.profile.broken > 100
