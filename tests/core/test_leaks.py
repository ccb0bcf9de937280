"""A million objects of the core, and memory stays as it was."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys

import pytest

from lbrcore import BranchClass, LbrConfig, LbrState


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def creations(make, count):
    """By how much memory grows over so many, when a tenth as many have been before."""
    for _ in range(count // 10):
        make()
    gc.collect()
    before = resident()
    for _ in range(count):
        make()
    gc.collect()
    return resident() - before


def facility():
    state = LbrState(LbrConfig())
    state.record_one(1, 2, BranchClass.COND)
    return state.records()


kept: list[bytearray] = []


def leak():
    kept.append(bytearray(100))


def grown(name, count):
    """`creations` in a new process: what other tests have freed would hide a leak."""
    done = subprocess.run([sys.executable, __file__, name, str(count)], capture_output=True,
                          text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow  # a million times: seconds
def test_a_million_facilities_leave_no_memory():
    assert grown("facility", 1_000_000) < 2 << 20


def test_a_leak_would_be_seen():
    assert grown("leak", 50_000) > 2 << 20


if __name__ == "__main__":
    print(creations(globals()[sys.argv[1]], int(sys.argv[2])))
