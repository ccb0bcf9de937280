"""Mistakes get a clear exception that names the argument and the rule; the state stays."""

import math
import pickle

import numpy as np
import pytest

from lbrcore import (
    BRANCH_DTYPE,
    CTL_ALL,
    ENTRY_DTYPE,
    BranchClass,
    Fault,
    LbrConfig,
    LbrState,
    xsave,
)

N = 200


def batch(n=N):
    branches = np.zeros(n, BRANCH_DTYPE)
    branches["from"] = np.arange(n) + 0x1000
    branches["to"] = 0x2000
    branches["cpl_from"] = branches["cpl_to"] = 3
    return branches


@pytest.fixture
def state():
    state = LbrState(LbrConfig())
    state.ctl = CTL_ALL & ~8
    state.record(batch(40))
    state.ler = (1, 2, 3)
    return state


def image(state):
    return xsave.component(state), state.cycles, state.frozen, state.event_mask


def with_field(name, value, at=N // 2, n=N):
    branches = batch(n)
    branches[name][at] = value
    return branches


REFUSED_BATCHES = {
    "none": (None, TypeError, "branches.*None"),
    "list": ([1, 2], TypeError, "branches: must be .*BRANCH_DTYPE, not a list"),
    "bytes": (bytes(64), TypeError, "branches: must be .*BRANCH_DTYPE"),
    "float": (np.zeros(4), TypeError, "not of float64"),
    "entries": (np.zeros(4, ENTRY_DTYPE), TypeError, "not of .*info"),
    "big-endian": (batch().astype(BRANCH_DTYPE.newbyteorder(">")), TypeError, "not of .*>u8"),
    "renamed": (batch().astype(BRANCH_DTYPE).view(
        [("frm", "u8"), *BRANCH_DTYPE.descr[1:]]), TypeError, "frm"),
    "strided": (batch()[::2], ValueError, "stride is 64 bytes"),
    "reversed": (batch()[::-1], ValueError, "stride is -32 bytes"),
    "two-dimensional": (batch().reshape(2, -1), ValueError, "2 dimensions"),
    "class": (with_field("class", 16), ValueError, r"branches\[100\]: class 16"),
    "flags": (with_field("flags", 8), ValueError, r"branches\[100\]: flags 0x8"),
    "cpl_from": (with_field("cpl_from", 4), ValueError, r"branches\[100\]: cpl_from 4"),
    "cpl_to": (with_field("cpl_to", 255), ValueError, r"branches\[100\].* cpl_to 255"),
    "short batch": (with_field("class", 99, at=1, n=3), ValueError, r"branches\[1\]: class 99"),
}


@pytest.mark.parametrize("name", REFUSED_BATCHES)
def test_batch(state, name):
    argument, error, text = REFUSED_BATCHES[name]
    before = image(state)
    with pytest.raises(error, match=text):
        state.record(argument)
    assert image(state) == before


def test_batch_at_an_odd_address(state):
    raw = np.zeros(33 * 32 + 1, "u1")
    branches = np.frombuffer(raw.data, BRANCH_DTYPE, count=32, offset=1)
    with pytest.raises((TypeError, ValueError), match="branches"):
        state.record(branches)


def test_a_disabled_facility_still_checks_its_input():
    with pytest.raises(ValueError, match="class 16"):
        LbrState(LbrConfig()).record(with_field("class", 16))


def columns(**changes):
    base = {
        "from_": np.arange(N, dtype="u8"), "to": np.ones(N, "u8"), "cls": np.zeros(N, "u1"),
        "cycles": np.ones(N, "u4"), "flags": np.zeros(N, "u1"), "cpl_from": 3, "cpl_to": 3,
    }
    return {**base, **changes}


REFUSED_COLUMNS = {
    "from_ signed": ({"from_": np.arange(N)}, TypeError, "from_: must be .*uint64, not of int64"),
    "to None": ({"to": None}, TypeError, "to: must be .*None"),
    "to short": ({"to": np.ones(3, "u8")}, ValueError, "to: has 3 items, `from_` has 200"),
    "cls wide": ({"cls": np.zeros(N, "u2")}, TypeError, "cls: must be .*uint8"),
    "cls value": ({"cls": np.full(N, 16, "u1")}, ValueError, "class 16"),
    "cycles float": ({"cycles": np.ones(N)}, TypeError, "cycles: must be .*uint32"),
    "flags strided": ({"flags": np.zeros(2 * N, "u1")[::2]}, ValueError, "flags: .*stride"),
    "cpl number": ({"cpl_to": 4}, OverflowError, "cpl_to: must be 0 to 0x3"),
    "cpl column": ({"cpl_from": np.full(N, 7, "u1")}, ValueError, "cpl_from 7"),
    "cpl text": ({"cpl_from": "user"}, TypeError, "cpl_from: must be"),
    "late class": ({"cls": np.r_[np.zeros(N - 1, "u1"), np.array([40], "u1")]}, ValueError,
                   r"branches\[199\]: class 40"),
}


@pytest.mark.parametrize("name", REFUSED_COLUMNS)
def test_columns(state, name):
    changes, error, text = REFUSED_COLUMNS[name]
    before = image(state)
    with pytest.raises(error, match=text):
        state.record_columns(**columns(**changes))
    assert image(state) == before


def test_columns_name_the_branch_behind_the_first_block(state):
    cls = np.zeros(1000, "u1")
    cls[777] = 77
    with pytest.raises(ValueError, match=r"branches\[777\]: class 77"):
        state.record_columns(np.ones(1000, "u8"), np.ones(1000, "u8"), cls)


@pytest.mark.parametrize(("changes", "error", "text"), [
    ({"from_": 1.5}, TypeError, "from_: must be an integer, not float"),
    ({"from_": -1}, OverflowError, "from_: must be 0 to 0xffffffffffffffff"),
    ({"to": 1 << 64}, OverflowError, "to: must be"),
    ({"to": None}, TypeError, "to: must be an integer, not NoneType"),
    ({"cls": 16}, OverflowError, "cls: must be 0 to 0xf"),
    ({"cls": "COND"}, TypeError, "cls: must be an integer"),
    ({"cycles": 1 << 32}, OverflowError, "cycles: must be"),
    ({"flags": 8}, OverflowError, "flags: must be 0 to 0x7"),
    ({"cpl_from": 4}, OverflowError, "cpl_from: must be 0 to 0x3"),
    ({"cpl_to": math.nan}, TypeError, "cpl_to: must be an integer"),
    ({"events": (1, 2, 3)}, ValueError, "events: must be 4 integers, not 3"),
    ({"events": None}, TypeError, "events: must be 4 integers, not None"),
    ({"events": 5}, TypeError, "events: must be 4 integers, not a int"),
    ({"events": (1, 2, 3, 256)}, OverflowError, "events: must be"),
])
def test_one_branch(state, changes, error, text):
    before = image(state)
    arguments = {"from_": 1, "to": 2, "cls": BranchClass.COND, **changes}
    with pytest.raises(error, match=text):
        state.record_one(arguments.pop("from_"), arguments.pop("to"), arguments.pop("cls"),
                         **arguments)
    assert image(state) == before


@pytest.mark.parametrize(("name", "value", "error", "text"), [
    ("ctl", 0x10, Fault, "ctl: bits 0x10 are reserved"),
    ("ctl", 1 << 63, Fault, "ctl: bits"),
    ("ctl", -1, OverflowError, "ctl: must be"),
    ("ctl", 1.0, TypeError, "ctl: must be an integer"),
    ("depth", 0, Fault, "depth: 0 is not offered"),
    ("depth", 40, Fault, "depth: 40 is not offered"),
    ("depth", 1 << 40, Fault, "depth: .* is not offered"),
    ("event_mask", 1, Fault, "event_mask: counters 0x1 offer"),
    ("event_mask", 16, OverflowError, "event_mask"),
    ("tos", 1, AttributeError, "tos: the architectural flavour has none"),
    ("enable", True, AttributeError, "enable: is LBREn"),
    ("ler", None, TypeError, "ler: must be 3 integers, not None"),
    ("ler", (1, 2), ValueError, "ler: must be 3 integers, not 2"),
    ("ler", (1, 2, 1 << 64), OverflowError, r"ler\[2\]: must be"),
    ("ler", (1.0, 2, 3), TypeError, r"ler\[0\]: must be an integer"),
    ("frozen", None, TypeError, "frozen: must be an integer"),
    ("frozen", 0.5, TypeError, "frozen: must be an integer"),
    ("frozen", 2, OverflowError, "frozen: must be 0 to 0x1"),
])
def test_control(state, name, value, error, text):
    before = image(state)
    with pytest.raises(error, match=text):
        setattr(state, name, value)
    assert image(state) == before


def test_entries(state):
    before = image(state)
    for call in (lambda: state.read_entry(32), lambda: state.write_entry(32, 1, 2, 3)):
        with pytest.raises(Fault, match="i: entry 32 does not exist at depth 32"):
            call()
    with pytest.raises(OverflowError, match="i: must be"):
        state.read_entry(-1)
    with pytest.raises(TypeError, match="info: must be an integer"):
        state.write_entry(0, 1, 2, 3.0)
    assert image(state) == before


@pytest.mark.parametrize(("changes", "text"), [
    ({"depth_bitmap": 0}, "depth_bitmap: must offer a depth"),
    ({"depth_bitmap": 0x10}, "none above 32"),
    ({"linear_width": 31}, "linear_width: must be 32 to 64"),
    ({"ctl_mask": 1 << 23}, "ctl_mask: has bits"),
    ({"event_counters": 16}, "event_counters"),
    ({"flavour": 2}, "flavour: must be"),
    ({"info_mask": 1 << 64}, "info_mask: must fit"),
    ({"flavour": 1, "depth": 12, "ctl_mask": 0}, "depth: must be a power of two"),
    ({"flavour": 1, "depth": 16}, "ctl_mask: has bits"),
    ({"quirks": 2}, "quirks"),
    ({"flavour": 1, "depth": 16, "ctl_mask": 0, "depth_bitmap": -1}, "depth_bitmap: must fit"),
])
def test_configuration(changes, text):
    with pytest.raises(ValueError, match=text):
        LbrConfig(**changes)


def test_configuration_types():
    with pytest.raises(TypeError, match="depth_bitmap: must be an integer"):
        LbrConfig(depth_bitmap=1.0)
    with pytest.raises(TypeError, match="config: must be a LbrConfig"):
        LbrState({"depth": 32})


def test_a_state_is_not_pickled(state):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(state)


# XSAVE

def area_of(state, size=1384):
    area = bytearray(size)
    xsave.xsaves(state, area, 0x8003, xinuse=3)
    return area


def flipped(area, bit):
    area = bytearray(area)
    area[bit // 8] ^= 1 << bit % 8
    return area


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda s, a: xsave.xsaves(s, bytes(a)), TypeError, "area: must be a writable"),
    (lambda s, a: xsave.xsaves(s, None), TypeError, "area: must be a buffer of bytes, not None"),
    (lambda s, a: xsave.xsaves(s, a, offset=32), Fault, "offset: 0x20 is not on a 64-byte"),
    (lambda s, a: xsave.xsaves(s, a, address=0x1008), Fault, "address: 0x1008 is not on"),
    (lambda s, a: xsave.xsaves(s, a, offset=4096), ValueError, "offset: 4096 lies beyond"),
    (lambda s, a: xsave.xsaves(s, bytearray(575)), ValueError, "area: 575 bytes end before"),
    (lambda s, a: xsave.xsaves(s, bytearray(1383)), ValueError, "area: 1383 bytes end before"),
    (lambda s, a: xsave.xsaves(s, a, 0x8803), ValueError, "no size in `sizes`"),
    (lambda s, a: xsave.xrstors(s, a[:575]), ValueError, "area: 575 bytes end before"),
    (lambda s, a: xsave.xrstors(s, a[:1383]), ValueError, "area: 1383 bytes end before"),
    (lambda s, a: xsave.xrstors(s, a, supported=3), Fault, "area: XCOMP_BV has bits"),
    (lambda s, a: xsave.xrstors(s, a, sizes=5), TypeError, "sizes: must map .*, not be a int"),
    (lambda s, a: xsave.xrstors(s, a, sizes={3: -1}), OverflowError, r"sizes\[3\]: must be"),
    (lambda s, a: xsave.xrstors(s, a, -1), OverflowError, "rfbm: must be"),
    (lambda s, a: xsave.xrstors(s, a, 1.0), TypeError, "rfbm: must be an integer"),
    (lambda s, a: xsave.restore_component(s, None), TypeError, "component: .* not None"),
    (lambda s, a: xsave.restore_component(s, bytes(39)), ValueError, "39 bytes end before"),
    (lambda s, a: xsave.restore_component(s, xsave.component(s)[:807]), ValueError,
     "component: 807 bytes end before"),
    (lambda s, a: xsave.restore_component(s, bytes([255]) * 808), Fault,
     "component: bits of IA32_LBR_CTL are set"),
], ids=range(19))
def test_xsave_arguments(state, call, error, text):
    area, before = area_of(state), image(state)
    with pytest.raises(error, match=text):
        call(state, area)
    assert image(state) == before


@pytest.mark.parametrize(("bit", "text"), [
    (520 * 8 + 63, r"area: XCOMP_BV\[63\] is clear"),
    (520 * 8 + 11, "area: XCOMP_BV has bits that are not in `supported`"),
    (512 * 8 + 63, "area: XSTATE_BV has bits that are not in XCOMP_BV"),
    (512 * 8 + 2, "area: XSTATE_BV has bits that are not in XCOMP_BV"),
    (528 * 8, "area: bytes 16 to 63 of the header"),
    (576 * 8 - 1, "area: bytes 16 to 63 of the header"),
    (576 * 8 + 4, "area: bits of IA32_LBR_CTL"),
    (584 * 8 + 20, "area: reserved bits of IA32_LBR_DEPTH"),
])
def test_a_refused_area_names_the_rule(state, bit, text):
    area, before = area_of(state), image(state)
    with pytest.raises(Fault, match=text):
        xsave.xrstors(state, flipped(area, bit), 0x8003)
    assert image(state) == before


def test_a_component_without_size_is_named_in_xrstors_too(state):
    area = flipped(area_of(state), 520 * 8 + 11)
    with pytest.raises(ValueError, match="area: a component that lies in it has no size in"):
        xsave.xrstors(state, area, 0x8003, supported=0x8803)


def test_a_refused_xsaves_writes_nothing(state):
    area = bytearray(b"\xaa" * 1000)
    with pytest.raises(ValueError, match="end before"):
        xsave.xsaves(state, area)
    assert area == b"\xaa" * 1000


def test_every_single_bit_of_the_header(state):
    """Each of the 512 flips is refused, or restores what the changed header describes."""
    area = area_of(state)
    xsave.xrstors(state, area, 0x8003)
    before = image(state)
    outcomes = {"fault": 0, "done": 0}
    for bit in range(512 * 8, 576 * 8):
        try:
            xsave.xrstors(state, flipped(area, bit), 0x8003)
        except Fault:
            outcomes["fault"] += 1
            assert image(state) == before
        else:
            outcomes["done"] += 1
            if bit == 512 * 8 + 15:  # XSTATE_BV[15] cleared: initial configuration
                assert xsave.component(state)[:8] == bytes(8)
                assert not state.records()["from"].any()
            else:  # XSTATE_BV[0] and [1] speak of components of others
                assert bit in (512 * 8, 512 * 8 + 1)
            xsave.xrstors(state, area, 0x8003)
    assert outcomes == {"fault": 509, "done": 3}


@pytest.mark.parametrize("length", [*range(0, 1384, 97), 1376, 1383])
def test_every_short_area_is_refused(state, length):
    area, before = area_of(state), image(state)
    with pytest.raises(ValueError, match="end before"):
        xsave.xrstors(state, area[:length], 0x8003)
    assert image(state) == before


def test_legacy_is_not_xsave_managed():
    legacy, area = LbrState(LbrConfig.legacy(16)), bytearray(1384)
    for call in (lambda: xsave.component(legacy), lambda: xsave.xsaves(legacy, area),
                 lambda: xsave.xrstors(legacy, area_of(LbrState(LbrConfig())))):
        with pytest.raises(ValueError, match="state: .*not XSAVE-managed"):
            call()
    assert area == bytes(1384)
    xsave.xsaves(legacy, area, 3)  # without component 15 it is but a header


@pytest.mark.parametrize("value", [None, "yes", 1.0])
def test_enable_is_a_truth_value(value):
    legacy = LbrState(LbrConfig.legacy(16))
    with pytest.raises(TypeError, match="enable: must be an integer"):
        legacy.enable = value
    assert not legacy.enable
    legacy.enable = np.True_
    assert legacy.enable
