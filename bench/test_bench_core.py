"""The core: batches, single records, XSAVE; each beside its floor in the same run."""

import subprocess
import sys
from collections import deque

import pytest

from bench.conftest import QUICK
from lbrcore import LbrConfig, LbrState, xsave
from pylbr.bench.streams import MIX, UNIFORM, random_branches
from tests.manual import RECORD_ALL

N = 4096
ALL, FILTERED, CALL_STACK = RECORD_ALL, 0x3A0005, 0x38000D


def facility(ctl):
    state = LbrState(LbrConfig())
    state.ctl = ctl
    return state


def accepted(ctl):
    """Truth table of the floors for a CTL that has USR alone."""
    bits = {16: 0, 17: 2, 18: 1, 19: 4, 20: 3, 21: 5}
    classes = sum(1 << cls for bit, cls in bits.items() if ctl >> bit & 1)
    return classes << 32 | classes << 48


@pytest.mark.parametrize("n", [64, N, 1 << 18])
def test_batch_all_classes(versus, floor, n):
    branches, state = random_branches(n, UNIFORM), facility(ALL)
    ring = floor.ring_new(0)
    versus(lambda: state.record(branches),
           lambda: floor.ring_plain(ring, branches.ctypes.data, n), n,
           name="C ring", limit=1.15)


@pytest.mark.parametrize("rival", ["ring_filtered", "ring_branchy"])
def test_batch_filtered(versus, floor, rival):
    branches, state = random_branches(N * 16, UNIFORM), facility(FILTERED)
    ring, rival = floor.ring_new(accepted(FILTERED)), getattr(floor, rival)
    versus(lambda: state.record(branches),
           lambda: rival(ring, branches.ctypes.data, len(branches)), len(branches),
           name="C ring with filter", limit=1.3)


def test_batch_call_stack(versus, floor):
    branches, state = random_branches(N * 16, MIX), facility(CALL_STACK)
    branches["cpl_to"] = 3
    ring = floor.ring_new(0)
    versus(lambda: state.record(branches),
           lambda: floor.ring_plain(ring, branches.ctypes.data, len(branches)), len(branches),
           name="C ring")


def test_batch_against_a_deque(versus):
    branches, state = random_branches(N, UNIFORM), facility(ALL)
    rows = [tuple(int(b[name]) for name in ("from", "to", "class", "flags", "cycles"))
            for b in branches]
    ring, classes = deque(maxlen=32), 0xFF3F

    def loop():
        """The same fields behind the same class filter."""
        since = 0
        for from_, to, cls, flags, cycles in rows:
            since += cycles
            if classes >> cls & 1:
                info = flags << 61 | 1 << 60 | (cls if cls < 8 else 8) << 56 | min(since, 0xFFFF)
                ring.append((from_, to, info))
                since = 0

    versus(lambda: state.record(branches), loop, N, name="deque", limit=1 / 150, rounds=20)


def test_columns_against_rows(versus):
    branches, state = random_branches(N, UNIFORM), facility(ALL)
    columns = {name: branches[name].copy() for name in branches.dtype.names}

    def by_columns():
        state.record_columns(columns["from"], columns["to"], columns["class"],
                             cycles=columns["cycles"], cpl_to=columns["cpl_to"])

    versus(by_columns, lambda: state.record(branches), N, name="rows")


@pytest.mark.parametrize(("ctl", "mix"), [(ALL, UNIFORM), (FILTERED, UNIFORM), (CALL_STACK, MIX)])
def test_one_record_through_the_table(versus, floor, api, ctl, mix):
    branches = random_branches(N, mix)
    state, ring = floor.create(api, ctl), floor.ring_new(0)
    # Several rounds a call, or ctypes would be a tenth of what is measured.
    versus(lambda: floor.table_record(api, state, branches.ctypes.data, N, 16),
           lambda: floor.ring_called(ring, branches.ctypes.data, N, 16), 16 * N,
           name="C ring called through a pointer")


@pytest.mark.parametrize("operation", ["table_pack", "table_unpack"])
def test_component_from_c(versus, floor, api, operation):
    rounds, state = 1000, floor.create(api, ALL)
    image, copy = bytearray(808), bytearray(808)
    branches = random_branches(64, UNIFORM)
    floor.table_record(api, state, branches.ctypes.data, 64, 1)
    to, source = ((floor_buffer(image)), floor_buffer(copy))
    floor.table_pack(api, state, to, 1)
    call = getattr(floor, operation)
    versus(lambda: call(api, state, to, rounds), lambda: floor.copy_808(to, source, rounds),
           rounds, name="memcpy of 808 bytes")


def floor_buffer(data):
    """Address of a bytearray that the caller keeps alive."""
    import ctypes

    return ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))


def test_component_from_python(versus):
    state, area = facility(ALL), bytearray(1384)
    state.record(random_branches(64, UNIFORM))
    xsave.xsaves(state, area, 0x8003)

    def loop():
        for _ in range(1000):
            xsave.xsaves(state, area, 0x8003)

    def back():
        for _ in range(1000):
            xsave.xrstors(state, area, 0x8003)

    versus(loop, back, 1000, name="xrstors", rounds=10)


def test_import(versus):
    """Time of ``import lbrcore`` on top of NumPy, from the interpreter's own account."""
    def start(modules):
        return subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)

    versus(lambda: start("numpy, lbrcore"), lambda: start("numpy"), 1,
           name="numpy alone", rounds=2 if QUICK else 5)
