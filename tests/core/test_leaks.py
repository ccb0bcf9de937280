"""A million objects of the core, and memory stays as it was."""

from __future__ import annotations

import gc
import os
import resource

import pytest

from lbrcore import BranchClass, LbrConfig, LbrState


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def creations(make, count):
    """By how much memory grows over so many, when as many have been before.

    In a child: what other tests have freed must not hide it.
    """
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            for _ in range(count // 10):
                make()
            gc.collect()
            before = resident()
            for _ in range(count):
                make()
            gc.collect()
            os.write(writer, str(resident() - before).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        grown = int(answer.read())
    os.waitpid(child, 0)
    return grown


def facility():
    state = LbrState(LbrConfig())
    state.record_one(1, 2, BranchClass.COND)
    return state.records()


@pytest.mark.slow  # a million times: seconds
def test_a_million_facilities_leave_no_memory():
    assert creations(facility, 1_000_000) < 2 << 20


def test_a_leak_would_be_seen():
    kept = []
    assert creations(lambda: kept.append(bytearray(100)), 50_000) > 2 << 20
