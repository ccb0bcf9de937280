"""Saved in the middle of a selftest, restored into a new machine, gone on with."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr.cli import main
from pylbr.embed.image import load
from pylbr.embed.machine import Machine
from pylbr.embed.savefile import MAGIC, pack, restore, save
from pylbr.errors import StateError
from tests.embed.guests import build

HEAD = 32


@pytest.fixture(scope="session")
def guests(tmp_path_factory):
    return tmp_path_factory.mktemp("guests")


def paused(path, at, **options):
    printed = bytearray()
    machine = Machine(console=printed.extend, memory=4 << 20, **options)
    machine.load(load(path))
    machine.pause_at = at
    return machine, machine.run(2_000_000_000), printed


@pytest.mark.parametrize("name", [
    "lbr_basic", "lbr_callstack", "lbr_pmi", "lbr_rings", "lbr_xsave", "ports", "timer"])
def test_going_on_elsewhere(guests, tmp_path, name):
    """At many points: the selftest ends as it would have, with the same output."""
    path = build(guests, name)
    whole, ending, printed = paused(path, None)
    assert ending.kind == "exit"
    total = whole.link.recorder.instructions
    for at in np.linspace(1, 0.98 * total, 9).astype(int).tolist():
        machine, ending, before = paused(path, at)
        assert ending.kind == "pause"
        save(machine, tmp_path / "machine")
        records = machine.processor.records()
        after = bytearray(before)
        other = restore(tmp_path / "machine", console=after.extend)
        np.testing.assert_array_equal(other.processor.records(), records)
        assert other.run(2_000_000_000).kind == "exit"
        assert after == printed


def test_before_long_mode_is_refused(guests, tmp_path):
    machine, ending, _ = paused(build(guests, "lbr_basic", multiboot=True), 5)
    assert ending.kind == "pause"
    with pytest.raises(StateError, match="long mode"):
        save(machine, tmp_path / "machine")
    assert not (tmp_path / "machine").exists()


@pytest.fixture(scope="session")
def saved(guests, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "machine"
    machine, _, _ = paused(build(guests, "lbr_callstack"), 20_000)
    save(machine, path)
    return path.read_bytes()


def header_of(data):
    length, = struct.unpack_from("<I", data, len(MAGIC))
    return json.loads(data[HEAD:HEAD + length]), data[HEAD + length:]


DAMAGE = {
    "model": "pentium-9", "memory": -1, "memory.larger": 8 << 20, "memory.huge": 1 << 50,
    "processor": "00", "processor.hex": "zz", "cpl": 1, "apic": None, "registers": None,
    "registers/RAX": -1, "registers/RBX": "1", "registers/CS": None, "tables/TR": [1],
    "fxsave": "00", "apic/registers": {"4096": 1}, "apic/base": 0xFEE00400, "virtual": [],
    "apic/timer": -1, "registers/CR0": 0x80000033 | 1 << 40, "registers/CR4": 1 << 13,
    "registers/CR3": 1, "registers/CR3.far": 1 << 40, "registers/CR3.high": 1 << 63, "efer": 0,
    "registers/CS.data": 16, "registers/CS.null": 0, "registers/CS.behind": 0xFFF8,
    "registers/SS": 8, "registers/DS": 40, "registers/RFLAGS": 1 << 17, "registers/DR7": 1 << 32,
    "tables/GDTR": [0, 1 << 63, 55, 0], "tables/IDTR": [0, 0, 1 << 16, 0],
    "ioapic": [0] * 49, "uart": "00", "firmware": "00" * 9,
}


@pytest.mark.parametrize("place", DAMAGE)
def test_damaged_headers(saved, tmp_path, place):
    header, rest = header_of(saved)
    *outer, name = place.split(".")[0].split("/")
    (header[outer[0]] if outer else header)[name] = DAMAGE[place]
    path = tmp_path / "machine"
    path.write_bytes(pack(header, rest))
    with pytest.raises(StateError, match=str(path)) as raised:
        restore(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("data", [
    b"", b"PYLBRVM", b"PYLBRVM1" + bytes(20), b"PYLBRVM9" + bytes(20), MAGIC, MAGIC + bytes(40),
    pack([], b""), pack({}, b""), pack({}, b"")[:-1], pack({}, b"") + b"x"])
def test_other_files(tmp_path, data):
    path = tmp_path / "machine"
    path.write_bytes(data)
    with pytest.raises(StateError, match=str(path)):
        restore(path)


@given(st.integers(0), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_is_refused(saved, tmp_path_factory, at, change):
    data = bytearray(saved)
    data[at % len(data)] ^= change
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(data)
    with pytest.raises(StateError):
        restore(path)


def test_the_first_version_had_no_checksums(capsys, tmp_path):
    path = tmp_path / "machine.vm"
    path.write_bytes(b"PYLBRVM1" + struct.pack("<I", 2) + b"{}")
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "save it again" in error
