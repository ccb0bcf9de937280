"""perf's words, models and the live table."""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lbrcore import BranchClass as C
from lbrcore import BranchFlag
from pylbr import trace
from pylbr.cli import main, record
from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.perf.abi import BranchSample
from pylbr.perf.branch_filter import lbr_ctl
from pylbr.perf.stacks import Samples
from pylbr.record.engine import Request, engine
from pylbr.record.filters import accepted_classes, recordable_filter
from pylbr.record.live import LiveOutput
from pylbr.record.output import PerfDataOutput
from pylbr.record.program import resolve
from pylbr.record.recorded import period_of
from pylbr.record.wire_numbers import Counted
from tests.record.conftest import PROGRAMS, need


@pytest.mark.parametrize(("words", "control"), [
    ("any,u", 0x7F0005), ("any", 0x7F0005), ("u", 0x7F0005), ("cond", 0x010005),
    ("any_call", 0x580005), ("any_ret", 0x600005), ("ind_call,ind_jmp", 0x140005),
    ("call,save_type", 0x080005),
])
def test_filters_as_linux_writes_them(words, control):
    assert lbr_ctl(recordable_filter(words)) == control


@pytest.mark.parametrize("name", ["qemu", "native"])
def test_what_a_recording_loads(name, tmp_path):
    """Its fixed cost is that of numpy and elftools: the large libraries are for other commands."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pylbr", "record", "--engine", name, "-o",
         tmp_path / "out.data", "--", "true"], capture_output=True, text=True, check=False)
    loaded = set(re.findall(r"^import time:.*\| +(\w+)", ended.stderr, re.M))
    need({"numpy", "elftools"} <= loaded, ended.stderr[-200:])
    assert not loaded & {"pyarrow", "capstone", "zstandard", "rich", "pydemumble", "unicorn"}


def test_window_holds_near_branches():
    assert accepted_classes(0x7F0005) == 0x3F
    assert accepted_classes(0x580005) == 1 << C.NEAR_REL_CALL | 1 << C.NEAR_IND_CALL


@pytest.mark.parametrize(("words", "reason"), [
    ("any,k", "runs no kernel"), ("stack", "record with --full"), ("abort_tx", "no transactions"),
    ("anything", "no such filter"),
])
def test_filters_that_cannot_be_had(words, reason):
    with pytest.raises(CommandError, match=reason):
        recordable_filter(words)


def test_script_brings_its_interpreter(tmp_path):
    script = tmp_path / "run"
    script.write_text("#! /bin/sh -e \necho\n")
    script.chmod(0o755)
    program = resolve([str(script), "word"])
    assert program.path == "/bin/sh"
    assert program.arguments == ("/bin/sh", "-e", str(script), "word")


def test_scripts_in_a_circle(tmp_path):
    script = tmp_path / "run"
    script.write_text(f"#!{script}\n")
    script.chmod(0o755)
    with pytest.raises(CommandError, match="more than 5 scripts in a row"):
        resolve([str(script)])


def test_unknown_engine():
    with pytest.raises(CommandError, match="no engine 'abacus'; there is .*qemu"):
        engine("abacus")


def stacks(path):
    with trace.open_stacks(path) as source:
        return source.metadata, [r for r in source if isinstance(r, Samples)]


@pytest.mark.parametrize(("words", "period"), [
    ([], (Counted.BRANCHES, 100003)), (["-e", "cycles:u", "-c", "7"], (Counted.CYCLES, 7)),
    (["-e", "BR_INST_RETIRED.NEAR_TAKEN:upp", "-c9"], (Counted.TAKEN, 9)),
    (["-b", "-F", "500"], (Counted.TIME, 2_000_000)),
])
def test_events_and_periods_of_perf(words, period):
    parser = argparse.ArgumentParser()
    record.configure(parser)
    args = parser.parse_args([*words, "ls", "-l", "-c", "x"])
    assert args.command_line == ["ls", "-l", "-c", "x"]
    assert period_of(args.freq, args.count, args.event) == period


@pytest.mark.parametrize(("words", "reason"), [
    (["-e", "cycles:k"], "has no kernel"), (["-e", "misses"], "no such event"),
    (["-c", "0"], "at least 1"), (["-F", "0"], "-F 0: 1 to"),
])
def test_events_and_periods_that_cannot_be_had(words, reason, capsys):
    assert main(["record", *words, "--", "/bin/true"]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.peer
class TestOnQemu:
    @pytest.mark.parametrize(("event", "counted"), [
        ("branches:u", None), ("instructions:u", "instructions"), ("taken", "taken")])
    def test_period_is_exact(self, build, pylbr_record, event, counted):
        """As many samples as the exact count of the event holds periods."""
        program = build("layout.c")
        run = pylbr_record(program, "20000", full=False, options=("-e", event, "-c", "997"))
        count = sum(len(samples) for samples in stacks(run.path)[1])
        branches = pylbr_record(program, "20000").branches()
        user = branches["from"] < 1 << 63
        total = {None: user.sum(), "instructions": branches["instructions"].sum(),
                 "taken": (user & (branches["class"] != C.NOT_TAKEN)).sum()}[counted]
        assert abs(count - int(total) // 997) <= 2

    @pytest.mark.parametrize("event", ["instructions", "cycles"])
    def test_period_takes_a_repeated_instruction_for_one(self, pylbr_record, event):
        """gzip clears its tables by `rep stos`, which enters its block again and again."""
        command = (shutil.which("gzip"), "-c", str(PROGRAMS / "compress.c"))
        run = pylbr_record(*command, full=False, options=("-e", event, "-c", "997"))
        count = sum(len(samples) for samples in stacks(run.path)[1])
        branches = pylbr_record(*command, options=("--cycles",)).branches("cycles")
        assert abs(count - int(branches[event].sum()) // 997) <= 2

    @pytest.mark.parametrize(("words", "classes"), [
        ("any_call", {4, 5}), ("cond", {1}), ("any_ret", {6}), ("ind_call", {5})])
    def test_filter(self, build, pylbr_record, words, classes):
        """Only what was asked for; 32 of it, unless it is so rare that the window is over."""
        run = pylbr_record(build("exceptions.cc"), full=False,
                           options=("-j", f"{words},save_type", "-c", "5003"))
        metadata, batches = stacks(run.path)
        entries = np.concatenate([batch.entries for batch in batches])
        kinds = entries["flags"] >> np.uint64(20) & np.uint64(15)
        assert set(kinds.tolist()) == classes
        depths = np.concatenate([np.diff(batch.offsets) for batch in batches])
        assert (depths[len(depths) // 2:] >= (31 if words != "ind_call" else 10)).mean() > 0.9

    def test_samples_are_windows_of_the_trace(self, build, pylbr_record):
        """Each stack, reversed, is a piece of the full trace's sequence of taken branches."""
        program = build("layout.c", "-static", output="layout-static")
        run = pylbr_record(program, "5000", full=False, options=("-c", "499"))
        full = pylbr_record(program, "5000").branches()
        taken = (full["class"] != C.NOT_TAKEN) & (full["from"] < 1 << 63) & (
            full["to"] < 1 << 63)
        sequence = np.stack([full["from"][taken], full["to"][taken]], axis=1)
        haystack = sequence.tobytes()
        found = 0
        for batch in stacks(run.path)[1]:
            for i in range(len(batch)):
                stack = batch.stack(i)[::-1]
                needle = np.stack([stack["from"], stack["to"]], axis=1).tobytes()
                at = haystack.find(needle)
                while at % 16:
                    assert at >= 0
                    at = haystack.find(needle, at + 1)
                found += 1
        assert found > 50

    def test_frequency(self, build, pylbr_record):
        program = build("layout.c")
        run = pylbr_record(program, "3000000", full=False, options=("-F", "500"))
        metadata, batches = stacks(run.path)
        times = np.concatenate([batch.time for batch in batches])
        assert Counted.TIME and len(times) > 20
        assert np.median(np.diff(times)) >= 2_000_000

    def test_models(self, build, pylbr_record):
        """Off by default, labelled where on."""
        program = build("layout.c")
        run = pylbr_record(program, "5000", options=("--cycles", "--mispredicts", "gshare"))
        with trace.open(run.path) as source:
            flags = np.concatenate([chunk.column("flags") for chunk in source.chunks()])
            cycles = np.concatenate([chunk.column("cycles") for chunk in source.chunks()])
            provenance = dict(source.metadata.provenance)
        assert 0.001 < (flags == BranchFlag.MISPRED).mean() < 0.3
        assert cycles.sum() >= run.branches()["instructions"].sum()
        assert provenance["mispredicts"] == "model: gshare"
        assert provenance["cycles"].startswith("model:")

    def test_event_that_a_model_counts_is_labelled(self, build, pylbr_record):
        program = build("layout.c")
        for event, label in (("cycles:u", "cycles: model: a price"), ("branches", "cycles: none")):
            run = pylbr_record(program, "5000", full=False, options=("-e", event, "-c", "997"))
            assert label in stacks(run.path)[0].cpu_description

    def test_samples_converge_to_the_trace(self, build, pylbr_record):
        """Overlap of edge profiles with the truth grows with the number of samples."""
        program = build("layout.c")
        full = pylbr_record(program, "100000").branches()
        taken = full["class"] != C.NOT_TAKEN
        own = (full["from"] < 0x4000800000) & taken
        truth = shares(full["from"][own], full["to"][own])
        overlaps = []
        for period in (100003, 10007, 1009, 101):
            run = pylbr_record(program, "100000", full=False,
                               options=("-e", "taken", "-c", str(period)))
            entries = np.concatenate([batch.entries for batch in stacks(run.path)[1]])
            entries = entries[entries["from"] < 0x4000800000]
            overlaps.append(overlap(truth, shares(entries["from"], entries["to"])))
        assert overlaps[-1] > 0.98 and overlaps[1] > 0.85
        assert overlaps[-1] > overlaps[0]

    def test_live_table(self, qemu, build, tmp_path):
        need(shutil.which("qemu-x86_64"), "no qemu")
        request = Request([str(build("layout.c")), "100000"], period=5003)
        qemu_engine, filter_ = engine("qemu"), BranchSample.USER | BranchSample.ANY
        stream = io.StringIO()
        out = tmp_path / "live.data"
        null = os.open(os.devnull, os.O_WRONLY)
        saved = os.dup(1)
        os.dup2(null, 1)
        try:
            output = PerfDataOutput(str(out), request, qemu_engine, filter_, ["x"])
            with LiveOutput(output, int(filter_), stream) as live:
                qemu_engine.run(request, live, live.refresh)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            os.close(null)
        lines = stream.getvalue().splitlines()
        assert "samples" in lines[0] and "run" in lines[2] and "(layout)" in lines[2]
        assert live.count == sum(len(samples) for samples in stacks(out)[1]) > 50

    def test_no_qemu_says_what_to_install(self, monkeypatch):
        monkeypatch.setenv("PYLBR_QEMU", "/no/such")
        with pytest.raises(UnsupportedFeature, match="Debian 12: qemu-user"):
            engine("qemu").run(Request(["/bin/true"]), None, lambda: None)


def shares(source, target):
    """{edge: share of all}."""
    pairs, counts = np.unique(np.stack([source, target]), axis=1, return_counts=True)
    return dict(zip(map(tuple, pairs.T.tolist()), (counts / counts.sum()).tolist(), strict=True))


def overlap(one, other):
    """Share of weight that two profiles have in common."""
    return sum(min(weight, other.get(edge, 0.0)) for edge, weight in one.items())


@pytest.mark.parametrize(("words", "reason"), [
    (["-c", "1000000000"], "fewer than the 1,000,000,000 events of a period occurred"),
    (["-F", "1"], "the program ended within the 1,000 ms to the first"),
])
def test_no_sample_is_a_failure_with_a_reason(tmp_path, capsys, words, reason):
    out = tmp_path / "x.perf.data"
    assert main(["record", "--engine", "qemu", *words, "-o", str(out), "--", "/bin/true"]) == 1
    assert f"no stacks: {reason}" in capsys.readouterr().err
    assert main(["report", str(out)]) == 2
