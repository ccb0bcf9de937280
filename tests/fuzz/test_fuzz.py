"""A short run of every target, and the harness against targets that fail on purpose."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pylbr.errors import TraceError
from tests.fuzz import harness, mutate, wire
from tests.fuzz.harness import Target, run_job
from tests.fuzz.sweep import FORMS, sweep
from tests.fuzz.targets import TARGETS, mutant

#: Mutants of each target: a few seconds.
COUNTS = {"machine": 200, "story": 500, "state": 3000, "core": 3000, "xsave": 5000}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_mutants_are_read_or_refused(name):
    target = TARGETS[name]
    report = run_job(target, mutant(target, 1), range(COUNTS.get(name, 800)))
    assert [(f.variant, f.what) for f in report.findings] == []
    # All of a Parquet or .lbrt file is under checksums: no mutant of these is accepted.  The
    # recorder counts what makes no sense, and continues.
    assert report.refused or name == "wire"
    assert report.other or name in ("parquet", "lbrt")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMS if TARGETS[name].checked])
def test_changed_bytes_are_refused_or_change_nothing(name):
    """Some of the changes; ``python -m tests.fuzz.sweep`` tries all."""
    target = TARGETS[name]
    for seed, data in enumerate(target.seeds()):
        report = sweep(target, seed, max(1, 255 * len(data) // 4000) | 1)
        assert [(f.variant, f.what) for f in report.findings] == []
        # A third of Arrow is padding; a small .lbrt has nearly all twice.
        assert report.refused > {"arrow": 2500, "lbrt": 150}.get(name, 3000)


def fake(run):
    return Target("fake", lambda: (b"seed",), run, mutate.blind, (TraceError,))


def numbered(number):
    return bytes([number]), 0


def failing(data, folder):
    number = data[0]
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 5:
        raise KeyError("five")
    if number == 6:
        raise TraceError("t", "refused")
    if number == 7:
        raise TraceError("t", "two\nlines")
    if number == 8:
        return bytearray(16 << 30)
    if number == 9:
        time.sleep(60)
    if number == 11:
        os._exit(3)
    return b"read" if number < 12 else b"otherwise"


def test_what_a_harness_must_see(monkeypatch):
    monkeypatch.setattr(harness, "HANG", 1.0)
    report = run_job(fake(failing), numbered, range(14), checked=False)
    found = {finding.variant: finding.what for finding in report.findings}
    assert sorted(found) == [3, 5, 7, 8, 9, 11]
    assert "SIGSEGV" in found[3] and found[5].startswith("KeyError: 'five' (test_fuzz.py:")
    assert "several lines" in found[7] and found[8].startswith("MemoryError")
    assert "hangs" in found[9] and "exit code 3" in found[11]
    assert report.executions == 14 and all(
        finding.data == bytes([finding.variant]) for finding in report.findings)


def test_silent_acceptance_is_seen():
    target = Target("fake", lambda: (b"\0",), failing, mutate.blind, (TraceError,), True)
    report = run_job(target, numbered, range(12, 14), checked=True)
    assert [finding.what for finding in report.findings] == [
        "is accepted and reads otherwise than its seed"] * 2


def test_mutants_are_reproducible():
    for target in (TARGETS["perf.data"], TARGETS["machine"], TARGETS["csv"]):
        first, again = ([mutant(target, 4)(n) for n in range(20)] for _ in range(2))
        assert first == again
        assert mutant(target, 4)(0) != mutant(target, 5)(0)


def test_a_recorded_program_cannot_end_or_hold_up_the_recorder():
    """What it may write into the memory that it shares with pylbr."""
    attacks = wire.attacks()
    names = list(attacks)
    report = run_job(TARGETS["wire"], lambda n: (attacks[names[n]], 0), range(len(names)))
    assert [(names[f.variant], f.what) for f in report.findings] == []
    assert report.executions == len(names)
