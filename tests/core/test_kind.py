"""Branches recorded by kind, whichever way, are those of the reference twin."""

import ctypes
import functools
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, CTL_ALL, ENTRY_DTYPE, INFO_ALL, LbrConfig
from lbrcore.reference import ReferenceLbr
from tests import once
from tests.core.library import ROOT, library, prefix
from tests.core.test_table import STEPS, Config, linked
from tests.cpu.library import CODES
from tests.manual import RECORD_ALL

P, U64, U32, U8, INT = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint8,
                        ctypes.c_int)


@functools.cache
def called():
    lib = ctypes.CDLL(library()._name)  # of its own: others give other types
    lib.lbr_kind.argtypes, lib.lbr_kind.restype = [U8] * 4, U64
    lib.lbr_record_kind.argtypes = [P, U64, U64, U32, U64]
    lib.lbr_hold.argtypes, lib.lbr_hold.restype = [P], U64
    lib.lbr_record_held.argtypes, lib.lbr_record_held.restype = [P, U64, U64, U64, U32, U64], U64
    lib.lbr_release.argtypes = [P, U64]
    lib.lbr_record_kinds.argtypes = [P, P, P, P, P, ctypes.c_size_t]
    return lib


@functools.cache
def included():
    def build(directory):
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-label", "-shared",
                        "-fPIC", f"-I{prefix() / 'include'}", str(ROOT / "tests/core/kind.c"),
                        str(prefix() / "lib/liblbrcore.a"), "-o", str(directory / "kind.so")],
                       check=True, timeout=120)

    lib = ctypes.CDLL(str(once.built("kind", build) / "kind.so"))
    for name in ("inlined", "held"):
        getattr(lib, name).argtypes = [P, P, ctypes.c_size_t, P]
    return lib


def kinds_of(batch):
    make = called().lbr_kind
    return np.array([make(*(int(branch[name]) for name in ("class", "flags", "cpl_from", "cpl_to")))
                     for branch in batch], "u8")


def one_by_one(state, batch, kinds):
    worst = 0
    for branch, kind in zip(batch, kinds, strict=True):
        worst |= called().lbr_record_kind(state, int(branch["from"]), int(branch["to"]),
                                          int(branch["cycles"]), int(kind))
    return worst


def together(state, batch, kinds):
    columns = [np.ascontiguousarray(batch[name]) for name in ("from", "to", "cycles")]
    return called().lbr_record_kinds(state, *(column.ctypes.data for column in columns),
                                     kinds.ctypes.data, len(batch))


def held(state, batch, kinds):
    lib = called()
    at = lib.lbr_hold(state)
    for branch, kind in zip(batch, kinds, strict=True):
        at = lib.lbr_record_held(state, at, int(branch["from"]), int(branch["to"]),
                                 int(branch["cycles"]), int(kind))
    return lib.lbr_release(state, at)


def in_c(name):
    def record(state, batch, kinds):
        return getattr(included(), name)(state, batch.ctypes.data, len(batch), kinds.ctypes.data)
    return record


WAYS = pytest.mark.parametrize("way", [
    one_by_one, together, held, in_c("inlined"), in_c("held")],
    ids=["one by one", "together", "held", "inlined", "held and inlined"])


@WAYS
@given(
    st.lists(STEPS, min_size=1, max_size=3),
    st.sampled_from([INFO_ALL, 0xFF0000000000FFFF, 0]), st.sampled_from([0, 0xF]),
    st.sampled_from([2, 5, 32]))
def test_it_records_what_the_twin_does(way, steps, info_mask, event_counters, depth):
    api = linked()
    settings = {"depth": depth, "linear_width": 48, "ctl_mask": CTL_ALL, "info_mask": info_mask,
                "event_counters": event_counters}
    config = Config(**settings)
    twin, state = ReferenceLbr(LbrConfig(**settings)), api.create(ctypes.addressof(config))
    try:
        for ctl, batch in steps:
            batch = batch.copy()
            batch["events"] = 0
            assert api.write_ctl(state, ctl) == 0
            twin.write_ctl(ctl)
            assert way(state, batch, kinds_of(batch)) == 0
            twin.record(batch)
        records = np.zeros(depth, ENTRY_DTYPE)
        assert api.read_records(state, records.ctypes.data) == depth
        assert [tuple(map(int, r)) for r in records] == [tuple(e) for e in twin.records()]
    finally:
        api.destroy(state)


@given(*[st.integers(0, 255)] * 4)
def test_the_word_is_what_the_header_states(cls, flags, cpl_from, cpl_to):
    kind = called().lbr_kind(cls, flags, cpl_from, cpl_to)
    assert kind & 0xFFFFFFFF == cls | flags << 8 | cpl_from << 16 | cpl_to << 24
    plain = cls < 6 and flags < 8 and cpl_from == cpl_to < 4
    assert (kind >> 32 & 1) == (not plain)
    if plain:
        assert kind >> 56 == flags << 5 | 1 << 4 | cls


@WAYS
@given(st.integers(0, (1 << 64) - 1), st.sampled_from([0, RECORD_ALL, 0x38000D]))
def test_any_word_is_recorded_or_refused(way, kind, ctl):
    """One that `lbr_kind` did not make does no harm; one of fields out of range changes nothing."""
    api = linked()
    config = Config(depth_bitmap=15, linear_width=48, ctl_mask=CTL_ALL,
                    info_mask=0xFF0000000000FFFF)
    state = api.create(ctypes.addressof(config))
    batch = np.zeros(1, BRANCH_DTYPE)
    batch["from"] = 1
    try:
        api.write_ctl(state, ctl)
        assert way(state, batch, kinds_of(batch)) == 0  # the first has no cycle count
        before = ctypes.string_at(state, api.state_size)
        fields = [kind >> shift & 0xFF for shift in (0, 8, 16, 24)]
        rare = bool(kind >> 32 & 1)
        legal = fields[0] < 16 and fields[1] < 8 and max(fields[2:]) < 4
        result = way(state, batch, np.array([kind], "u8"))
        if not legal and (rare or way is together):
            assert result == CODES["LBR_EINVAL"]
            assert ctypes.string_at(state, api.state_size) == before
        elif legal:
            assert result == 0
        records = np.zeros(32, ENTRY_DTYPE)
        assert api.read_records(state, records.ctypes.data) == 32
        assert not np.any(records["info"] & np.uint64(0x00FFFFFFFFFF0000))
    finally:
        api.destroy(state)


def test_null_is_refused():
    lib, ten = called(), (U64 * 2)()
    assert lib.lbr_record_kind(None, 1, 2, 3, 0) == CODES["LBR_ENULL"]
    assert lib.lbr_hold(None) == lib.lbr_record_held(None, 9, 1, 2, 3, 0) == 0
    assert lib.lbr_release(None, 0) == CODES["LBR_ENULL"]
    api = linked()
    config = Config(depth_bitmap=15, linear_width=48, ctl_mask=CTL_ALL, info_mask=INFO_ALL)
    state = api.create(ctypes.addressof(config))
    before = ctypes.string_at(state, api.state_size)
    for null in range(5):
        given = [None if i == null else state if not i else ctypes.addressof(ten) for i in range(5)]
        assert lib.lbr_record_kinds(*given, 1) == CODES["LBR_ENULL"]
    assert ctypes.string_at(state, api.state_size) == before
    api.destroy(state)


def test_a_head_that_wraps_goes_on():
    """As after 2^32 records: what is held then is rare once, and counts from 0."""
    api, lib = linked(), called()
    config = Config(depth_bitmap=15, linear_width=48, ctl_mask=CTL_ALL, info_mask=INFO_ALL)
    state = api.create(ctypes.addressof(config))
    try:
        assert api.write_ctl(state, RECORD_ALL) == 0
        kind = lib.lbr_kind(5, 0, 0, 0)
        held = 0xFFFF_FFFE
        for i in range(4):
            held = lib.lbr_record_held(state, held, 0x1000 + i, 0x2000, 1, kind)
        assert held == 2
        assert lib.lbr_release(state, held) == 0
        records = np.zeros(32, ENTRY_DTYPE)
        api.read_records(state, records.ctypes.data)
        assert records["from"][:4].tolist() == [0x1003, 0x1002, 0x1001, 0x1000]
    finally:
        api.destroy(state)
