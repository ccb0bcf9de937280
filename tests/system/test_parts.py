"""The parts of the recorder of systems, without one."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from lbrcore import BranchClass
from pylbr.embed.image import Image
from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.record.engine import Outcome
from pylbr.record.wire_numbers import BLOCK_DTYPE
from pylbr.system.btf import Btf
from pylbr.system.engine import _Run, system_command
from pylbr.system.kernel import GuestKernel
from pylbr.system.monitor import gates_in

TEXT = 0xFFFFFFFF81000000


def gate(address, present=True):
    return struct.pack("<HHHHII", address & 0xFFFF, 0x10, 0x8E00 if present else 0x0E00,
                       address >> 16 & 0xFFFF, address >> 32, 0)


def test_gates_are_those_that_are_present():
    table = gate(TEXT + 0x1230) + gate(TEXT, False) + gate(TEXT + 0x10) + gate(TEXT + 0x1230)
    assert gates_in(table + b"cut").tolist() == [TEXT + 0x10, TEXT + 0x1230]


def kernel_of(code):
    return GuestKernel(TEXT, code, {}, Image("", 0, False, ((0x1000000, len(code), code),), (),
                                             offset=TEXT - 0x1000000))


@pytest.mark.parametrize("slide", [0, 0x2000000, 0x1E200000])
def test_a_kernel_is_found_by_the_displacements_of_its_branches(slide):
    rng = np.random.default_rng(slide)
    code = rng.integers(0, 256, 1 << 20, np.uint8).tobytes()
    rows = []
    for at in rng.integers(64, len(code) - 64, 500).tolist():
        displacement, = struct.unpack_from("<i", code, at - 4)
        end = TEXT + slide + at
        rows.append((end - 20, end + displacement & (1 << 64) - 1, 0, 20, 15, 3, 0,
                     BranchClass.NEAR_REL_CALL))
    rows += [(0x400000, 0, 0, 5, 0, 1, 0, BranchClass.NEAR_REL_CALL)] * 50
    kernel, blocks = kernel_of(code), np.array(rows, BLOCK_DTYPE)
    assert kernel.moved(blocks) == slide
    assert kernel.moved(blocks[:100]) is None
    blocks["target"] += np.uint64(1)
    assert kernel.moved(blocks) is None


def test_btf_gives_the_members_of_structures():
    strings = b"\0int\0module\0list\0name\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 32)  # int, and a structure of two
    types += struct.pack("<III", 5, 4 << 24 | 2, 16)
    types += struct.pack("<III", 12, 1, 64) + struct.pack("<III", 17, 1, 96)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    btf = Btf.read(head + types + strings)
    assert {name: m.offset for name, m in btf.struct("module").items()} == {"list": 8, "name": 12}
    assert btf.struct("list") == {} and Btf.read(b"\0" * 64) is None and Btf.read(b"") is None
    for cut in range(len(types)):  # damaged: anything but an exception
        Btf.read(head + types[:cut] + strings).struct("module")


@pytest.mark.parametrize(("words", "said"), [
    (["-enable-kvm"], "under KVM"), (["-accel", "kvm"], "under KVM"),
    (["-machine", "q35,accel=kvm"], "under KVM"), (["-daemonize"], "leave it out"),
    (["ls", "-l"], "is no qemu-system-x86_64"),
])
def test_what_cannot_be_recorded_is_refused(words, said):
    with pytest.raises(CommandError, match=said):
        system_command(words)


def test_a_missing_qemu_is_named(monkeypatch):
    monkeypatch.setenv("PYLBR_QEMU_SYSTEM", "no-such-qemu")
    with pytest.raises(UnsupportedFeature, match="no no-such-qemu found: install QEMU's system"):
        system_command(["-kernel", "vmlinuz"])


@pytest.mark.parametrize("gates, said", [([], 1), ([0xFFFFFFFF81000000], 0)])
def test_interrupts_that_could_not_be_cut_are_told(gates, said):
    run = object.__new__(_Run)
    vars(run).update(
        _stacks=3, _gates=np.array(gates, np.uint64), _sweep=lambda: None, _look=lambda: None,
        _kept=None, _outcome=Outcome(), _drain=SimpleNamespace(cut=0, damaged=0),
        _wire=SimpleNamespace(lost_threads=0), _mapped=SimpleNamespace(remarks=list))
    remarks = run.finish(SimpleNamespace(status=0, remarks=[])).remarks
    assert sum("no interrupt gates" in remark for remark in remarks) == said
