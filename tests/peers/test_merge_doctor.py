"""Tools make of merged profiles what they make of recordings, of bad ones what doctor says."""

import subprocess
import sys
from dataclasses import replace

import pytest
from peer_tools import LLVM, VERSIONS, checked, llvm_prof, need, perf2bolt, profgen, run, totals
from peer_workload import EVENT, HERE, METADATA, sample

from pylbr.cli import main
from pylbr.perf.abi import BranchSample
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Comm, Mmap
from pylbr.profile.doctor import examine
from pylbr.trace import open_any

pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def parts(workload, tmp_path_factory):
    """The recording as one file, and as two."""
    place = tmp_path_factory.mktemp("parts")
    samples = sample(workload, 7)
    write_perf_data(place / "whole", workload.stream(samples))
    for name, period in (("one", 11), ("two", 13)):
        write_perf_data(place / name, workload.stream(sample(workload, period)))
    return place


@pytest.mark.parametrize("version", VERSIONS)
def test_llvm_profgen_makes_the_same_of_text(parts, workload, version):
    out = parts / f"{version}.profgen.txt"
    assert main(["merge", str(parts / "whole"), "-o", str(out), "--binary",
                 str(workload.binary)]) == 0
    profgen(version, workload.binary, f"{out}.ours", **{"unsymbolized-profile": out})
    profgen(version, workload.binary, f"{out}.theirs", perfdata=parts / "whole")
    ours, theirs = ((parts / f"{out}.{who}").read_text() for who in ("ours", "theirs"))
    assert ours == theirs and "run:" in ours
    tool = need(LLVM[version] / "llvm-profgen")
    checked(tool, f"--perfdata={parts / 'whole'}", f"--binary={workload.binary}",
            "--skip-symbolization", f"--output={out}.raw")
    assert sorted(out.read_text().split()) == sorted((parts / f"{out}.raw").read_text().split())


def test_llvm_profdata_adds_up_to_what_merge_does(parts, workload):
    """Two recordings merged by us, and LLVM's two profiles merged by LLVM."""
    version = VERSIONS[-1]
    out = parts / "sum.profgen.txt"
    assert main(["merge", str(parts / "one"), str(parts / "two"), "-j", "2", "-o", str(out),
                 "--binary", str(workload.binary)]) == 0
    profgen(version, workload.binary, f"{out}.prof", **{"unsymbolized-profile": out})
    ours = totals((parts / f"{out}.prof").read_text())
    each = []
    for name in ("one", "two"):
        profgen(version, workload.binary, parts / f"{name}.prof", perfdata=parts / name)
        each.append(totals((parts / f"{name}.prof").read_text()))
    assert set(ours) == set(each[0]) | set(each[1])
    for name, count in ours.items():  # profgen rounds when it spreads counts over lines
        expected = sum(part.get(name, 0) for part in each)
        assert abs(count - expected) <= 0.01 * expected + 2


def test_pprof_reads_ours(parts, workload):
    go = need("go")
    out = parts / "x.pb.gz"
    assert main(["merge", str(parts / "whole"), "-o", str(out), "--binary",
                 str(workload.binary)]) == 0
    text = subprocess.run(
        [go, "tool", "pprof", "-top", "-nodecount=500", str(out)], capture_output=True, text=True,
        timeout=120, env={"HOME": str(parts), "PATH": "/usr/bin:/bin"}, check=True).stdout
    assert "Type: taken_branches" in text and " run" in text


def _variants(workload, samples):
    comm = Comm(samples.pid[0], samples.pid[0], "workload", True)
    comm = replace(comm, pid=int(samples.pid[0]), tid=int(samples.pid[0]))
    index = replace(EVENT, branch_sample_type=EVENT.branch_sample_type
                    | int(BranchSample.HW_INDEX))
    far = [Mmap(m.pid, m.tid, m.start + (1 << 40), m.length, m.file_offset, m.path,
                m.build_id) for m in workload.mmaps]
    hw_idx = samples.time * 0
    return {
        "good": (METADATA, [comm, *workload.mmaps, samples]),
        "without COMM": (METADATA, [*workload.mmaps, samples]),
        "without mappings": (METADATA, [comm, samples]),
        "mapped elsewhere": (METADATA, [comm, *far, samples]),
        "with HW_INDEX": (replace(METADATA, events=(index,)),
                          [comm, *workload.mmaps, replace(samples, hw_idx=hw_idx)]),
    }


@pytest.mark.parametrize("name", ["good", "without COMM", "without mappings", "mapped elsewhere",
                                  "with HW_INDEX"])
def test_doctor_foretells_what_is_empty(workload, tmp_path, name):
    need("perf")
    path = tmp_path / "perf.data"
    write_perf_data(path, _variants(workload, sample(workload, 7))[name])
    with open_any(path) as source:
        found = examine(source, str(workload.binary))
    made = {}
    text = run(LLVM[19] / "perf2bolt", "-p", path, "-o", tmp_path / "x.fdata", workload.binary)
    made["perf2bolt"] = text.returncode == 0 and (tmp_path / "x.fdata").stat().st_size > 0
    run(need(LLVM[19] / "llvm-profgen"), f"--perfdata={path}", f"--binary={workload.binary}",
        f"--output={tmp_path / 'x.prof'}", "--format=text")
    made["llvm-profgen"] = bool((tmp_path / "x.prof").exists()
                                and totals((tmp_path / "x.prof").read_text()))
    run(need("create_llvm_prof"), f"--binary={workload.binary}", f"--profile={path}",
        f"--out={tmp_path / 'x.afdo'}", "--format=text")
    made["AutoFDO"] = bool((tmp_path / "x.afdo").exists()
                           and totals((tmp_path / "x.afdo").read_text(errors="replace")))
    said = {consumer: found.verdict(consumer) != "empty" for consumer in made}
    assert made == said, [f.what for f in found.findings]


@pytest.mark.parametrize("listed", [True, False])
def test_doctor_foretells_what_perf_report_refuses(workload, tmp_path, listed):
    path = tmp_path / "perf.data"
    write_perf_data(path, workload.stream(sample(workload, 7)))
    if not listed:  # the bitmap of features; this one has no content, and its place is last
        data = bytearray(path.read_bytes())
        data[72 + 1] &= ~0x80
        path.write_bytes(data)
    done = run(need("perf"), "report", "-i", path, "--branch-history", "--stdio")
    with open_any(path) as source:
        verdict = examine(source).verdict("perf report")
    refused = "But no callchain or branch data" in done.stderr  # and exits with 0
    assert refused != listed == (verdict != "empty")


@pytest.mark.parametrize("linker", ["bfd", "mold"])
def test_doctor_foretells_what_autofdo_makes_of_a_linkers_file(tmp_path, linker):
    binary, data, out = tmp_path / "program", tmp_path / "perf.data", tmp_path / "x.afdo"
    checked(need("gcc"), "-O1", "-gdwarf-4", "-w", f"-fuse-ld={linker}", "-Wl,--build-id", "-o",
            binary, HERE / "linked.c")
    checked(sys.executable, "-m", "pylbr", "record", "-q", "-e", "taken", "-c", "211",
            "-o", data, "--", binary)
    run(need("create_llvm_prof"), f"--binary={binary}", f"--profile={data}", f"--out={out}",
        "--format=text")
    with open_any(data) as source:
        verdict = examine(source, str(binary)).verdict("AutoFDO")
    assert bool(totals(out.read_text(errors="replace"))) == (linker == "bfd")
    assert (verdict == "empty") == (linker == "mold")


def test_bolt_reads_what_was_merged(parts, workload):
    out = parts / "both.preagg"
    assert main(["merge", str(parts / "one"), str(parts / "two"), "-o", str(out), "--binary",
                 str(workload.binary), "--preagg-form", "branches"]) == 0
    assert perf2bolt(19, out, workload.binary, parts / "both.fdata", "-pa") == 0
    assert llvm_prof(workload.binary, parts / "x.afdo", f"--profile={parts / 'whole'}")
