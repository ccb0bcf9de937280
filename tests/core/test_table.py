"""The C functions, called as a C program calls them, are equal to the reference twin.

Those of the table in the capsule, and those of liblbrcore.
"""

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lbrcore
from lbrcore import BRANCH_DTYPE, CTL_ALL, ENTRY_DTYPE, INFO_ALL, LbrConfig
from lbrcore.reference import ReferenceLbr
from tests.core.library import library
from tests.core.test_twin import branch_batches, call_batches
from tests.manual import RECORD_ALL


class Config(ctypes.Structure):
    """struct lbr_config."""
    _fields_ = [(name, ctypes.c_uint8) for name in (
        "flavour", "depth_bitmap", "depth", "linear_width", "event_counters", "quirks")]
    _fields_ += [("reserved", ctypes.c_uint8 * 2), ("ctl_mask", ctypes.c_uint64),
                 ("info_mask", ctypes.c_uint64)]


P, U64, INT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int


class Table(ctypes.Structure):
    """The head of struct lbrcore_api, as far as it is used here."""
    _fields_ = [(name, ctypes.c_uint32) for name in (
        "abi_version", "struct_size", "branch_size", "entry_size", "config_size", "state_size")]
    _fields_ += [
        ("create", ctypes.CFUNCTYPE(P, P)), ("destroy", ctypes.CFUNCTYPE(None, P)),
        ("copy", P), ("reset", P), ("record", ctypes.CFUNCTYPE(INT, P, P)),
        ("record_batch", ctypes.CFUNCTYPE(INT, P, P, ctypes.c_size_t)),
        ("write_ctl", ctypes.CFUNCTYPE(INT, P, U64)), ("write_depth", P), ("set_enable", P),
        ("set_frozen", P), ("set_event_mask", P), ("write_tos", P), ("read_entry", P),
        ("write_entry", P), ("read_records", ctypes.CFUNCTYPE(ctypes.c_uint32, P, P)),
    ]


def capsule() -> Table:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = P, [ctypes.py_object, ctypes.c_char_p]
    return Table.from_address(get(lbrcore._C_API, b"lbrcore._C_API"))


def linked() -> Table:
    get = library().lbr_api
    get.restype = P
    return Table.from_address(get())


TABLES = pytest.mark.parametrize("table", [capsule, linked])
STEPS = st.one_of(
    st.tuples(st.integers(0, 0x7FF).map(lambda n: n & 0xF | n >> 4 << 16), branch_batches()),
    st.tuples(st.just(RECORD_ALL), branch_batches()),
    st.tuples(st.just(0x38000D), call_batches()))


@TABLES
@given(
    st.lists(STEPS, min_size=1, max_size=3),
    st.sampled_from([INFO_ALL, 0xFF0000000000FFFF, 0]), st.sampled_from([0, 0xF]),
    st.sampled_from([2, 5, 32]))
def test_one_record_at_a_time(table, steps, info_mask, event_counters, depth):
    api = table()
    ours = LbrConfig(depth=depth, linear_width=48, ctl_mask=CTL_ALL, info_mask=info_mask,
                     event_counters=event_counters)
    config = Config(depth=depth, linear_width=48, ctl_mask=CTL_ALL, info_mask=info_mask,
                    event_counters=event_counters)
    twin, state = ReferenceLbr(ours), api.create(ctypes.addressof(config))
    try:
        for ctl, batch in steps:
            assert api.write_ctl(state, ctl) == 0
            twin.write_ctl(ctl)
            for i in range(len(batch)):
                assert api.record(state, batch.ctypes.data + 32 * i) == 0
            twin.record(batch)
        records = np.zeros(depth, ENTRY_DTYPE)
        assert api.read_records(state, records.ctypes.data) == depth
        assert [tuple(map(int, r)) for r in records] == [tuple(e) for e in twin.records()]
    finally:
        api.destroy(state)


@TABLES
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255),
       st.sampled_from([0, RECORD_ALL, 0x38000D]))
def test_what_is_out_of_range_is_refused(table, cls, flags, cpl_from, cpl_to, ctl):
    api = table()
    config = Config(flavour=0, depth_bitmap=15, linear_width=48, ctl_mask=CTL_ALL,
                    info_mask=INFO_ALL)
    state = api.create(ctypes.addressof(config))
    branch = np.zeros(1, BRANCH_DTYPE)
    branch["from"] = 1
    for name, value in (("class", cls), ("flags", flags), ("cpl_from", cpl_from),
                        ("cpl_to", cpl_to)):
        branch[name] = value
    try:
        api.write_ctl(state, ctl)
        before = ctypes.string_at(state, api.state_size)
        legal = cls < 16 and flags < 8 and cpl_from < 4 and cpl_to < 4
        assert (api.record(state, branch.ctypes.data) == 0) == legal
        assert legal or ctypes.string_at(state, api.state_size) == before
    finally:
        api.destroy(state)
