"""liblbrcore called wrongly: a code with a text, and the state as it was."""

import ctypes
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import CTL_ALL, INFO_ALL, Fault, LbrConfig, LbrState, xsave
from tests.core.library import ROOT, library
from tests.core.test_table import Config

HEADER = (ROOT / "lbrcore/include/lbrcore.h").read_text()
CODES = {name: int(value) for name, value in re.findall(
    r"(LBR_\w+) = (-?\d+)", re.search(r"enum lbr_result {(.*?)};", HEADER, re.S)[1])}
ABI = int(re.search(r"LBRCORE_ABI_VERSION (\d+)u", HEADER)[1])
#: Name -> (what it returns, arguments) of every function that takes a pointer.
DECLARED = {
    name: (result.strip(), [one.strip() for one in " ".join(arguments.split()).split(",")])
    for result, name, arguments in re.findall(
        r"^LBRCORE_PUBLIC ([^;(]*?)(lbr_\w+)\(([^;]*)\);", HEADER, re.M)
    if "*" in arguments
    and name != "lbr_destroy" and not name.endswith("_rare")}


def config(**other):
    return Config(**{"depth_bitmap": 15, "linear_width": 48, "ctl_mask": CTL_ALL,
                     "info_mask": INFO_ALL, **other})


@pytest.fixture
def state():
    """A state that records, with something in it."""
    create = library().lbr_create
    create.restype = ctypes.c_void_p
    made = ctypes.c_void_p(create(ctypes.byref(config())))
    assert library().lbr_write_ctl(made, ctypes.c_uint64(0x7F0007)) == 0
    branch = np.zeros(1, [("from", "u8"), ("to", "u8"), ("rest", "u8", 2)])
    branch["from"], branch["to"] = 0x1000, 0x2000
    assert library().lbr_record(made, branch.ctypes.data_as(ctypes.c_void_p)) == 0
    yield made
    library().lbr_destroy(made)


def size():
    get = library().lbr_api
    get.restype = ctypes.POINTER(ctypes.c_uint32)
    return get()[5]


def image(state):
    return ctypes.string_at(state, size())


@pytest.mark.parametrize("name", DECLARED)
def test_null_is_refused(name, state):
    result, arguments = DECLARED[name]
    pointers = [i for i, one in enumerate(arguments) if "*" in one]
    before = image(state)
    function = getattr(library(), name)
    function.restype = ctypes.c_void_p if "*" in result else ctypes.c_int
    wanted = (None if "*" in result else
              0 if name in ("lbr_read_records", "lbr_config_valid", "lbr_hold", "lbr_record_held")
              else CODES["LBR_ENULL"])
    room = ctypes.create_string_buffer(4096)
    for null in pointers:
        given = [None if i == null else state if "lbr_state *" in one else
                 room if i in pointers else ctypes.c_uint64(0) for i, one in enumerate(arguments)]
        assert function(*given) == wanted, arguments[null]
        assert image(state) == before and not any(room.raw)


def test_every_code_has_a_text_of_its_own():
    text = library().lbr_strerror
    text.restype = ctypes.c_char_p
    assert sorted(CODES.values()) == list(range(-12, 1))
    assert len({text(code) for code in CODES.values()}) == 13
    assert text(7) == text(-13) == b"not a result of lbrcore"


@pytest.mark.parametrize("given, version, length, code", [
    (config(), ABI, ctypes.sizeof(Config), "LBR_OK"),
    (config(), ABI + 1, ctypes.sizeof(Config), "LBR_EABI"),
    (config(), 0, ctypes.sizeof(Config), "LBR_EABI"),
    (config(), ABI, ctypes.sizeof(Config) - 8, "LBR_ESIZE"),
    (config(), ABI, ctypes.sizeof(Config) + 8, "LBR_ESIZE"),
    (config(depth_bitmap=0), ABI, ctypes.sizeof(Config), "LBR_ECONFIG"),
    (config(depth_bitmap=0x80), ABI, ctypes.sizeof(Config), "LBR_ECONFIG"),
    (config(linear_width=31), ABI, ctypes.sizeof(Config), "LBR_ECONFIG"),
    (config(flavour=2), ABI, ctypes.sizeof(Config), "LBR_ECONFIG"),
    (config(event_counters=16), ABI, ctypes.sizeof(Config), "LBR_ECONFIG"),
    (config(ctl_mask=1 << 40), ABI, ctypes.sizeof(Config), "LBR_ECONFIG"),
    (config(flavour=1, depth=12, ctl_mask=0), ABI, ctypes.sizeof(Config), "LBR_ECONFIG"),
])
def test_a_state_is_made_or_the_reason_told(given, version, length, code):
    made = ctypes.c_void_p(1)
    result = library().lbr_open(ctypes.byref(made), ctypes.byref(given), ctypes.c_size_t(length),
                                ctypes.c_uint32(version))
    assert result == CODES[code]
    assert bool(made.value) == (code == "LBR_OK")
    library().lbr_destroy(made)


def saved():
    lbr = LbrState(LbrConfig(depth_bitmap=15, linear_width=48))
    lbr.ctl = 0x7F0007
    for i in range(40):
        lbr.record_one(i, i + 1, 0)
    return xsave.component(lbr)


@given(st.integers(0, 808), st.integers(0, 39), st.integers(0, 2**64 - 1))
def test_a_damaged_component_is_refused_and_changes_nothing(cut, at, word):
    """As the extension answers: the whole component, or none of it."""
    made = ctypes.c_void_p()
    assert library().lbr_open(ctypes.byref(made), ctypes.byref(config()),
                              ctypes.c_size_t(ctypes.sizeof(Config)), ABI) == 0
    data = bytearray(saved())
    data[at & ~7:(at & ~7) + 8] = word.to_bytes(8, "little")
    data = bytes(data[:cut])
    twin, before = LbrState(LbrConfig(depth_bitmap=15, linear_width=48)), image(made)
    result = library().lbr_unpack(made, data, ctypes.c_size_t(len(data)))
    try:
        xsave.restore_component(twin, data)
        code = "LBR_OK"
    except Fault:
        code = "LBR_GP"
    except ValueError:
        code = "LBR_ESHORT"
    assert result == CODES[code]
    assert result == 0 or image(made) == before
    room = ctypes.create_string_buffer(808)
    assert library().lbr_pack(made, room, ctypes.c_size_t(808)) == 0
    assert room.raw.startswith(xsave.component(twin))
    library().lbr_destroy(made)
