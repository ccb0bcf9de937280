"""Real guest code on the machine: selftests, bad guests, bad images."""

from __future__ import annotations

import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unicorn import x86_const

from pylbr.arch import MODELS
from pylbr.cli import main
from pylbr.cpu import Processor
from pylbr.embed.apic import Apic
from pylbr.embed.image import ImageError, load
from pylbr.embed.machine import MIB, Machine
from pylbr.embed.report import report
from pylbr.errors import ConfigurationError
from pylbr.trace import open as open_trace
from tests.conftest import ROOT
from tests.embed.guests import build
from tests.manual import IA32_DEBUGCTL, IA32_LBR_CTL, IA32_LBR_DEPTH

SELFTESTS = ("lbr_basic", "lbr_callstack", "lbr_pmi", "lbr_rings", "lbr_xsave", "ports", "timer",
             "debug")


@pytest.fixture(scope="session")
def guests(tmp_path_factory):
    return tmp_path_factory.mktemp("guests")


def start(path, **options):
    """A machine that has loaded `path`, and what it will print."""
    printed = bytearray()
    machine = Machine(console=printed.extend, **options)
    machine.load(load(path))
    return machine, printed


@pytest.mark.parametrize("model", ["sapphire-rapids", "alder-lake-p"])
@pytest.mark.parametrize("name", SELFTESTS)
def test_selftests(guests, name, model):
    machine, printed = start(build(guests, name), model=model)
    ending = machine.run(2_000_000_000)
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed\n", printed.decode()), (printed, ending)
    assert (ending.kind, ending.code) == ("exit", 0)
    assert machine.link.recorder.unexplained == 0


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_multiboot_image_runs(guests, tmp_path, wrapped):
    """Started in 32-bit protected mode; as ELF64, and as the ELF32 that boot loaders like."""
    path = build(guests, "lbr_basic", multiboot=True)
    if wrapped:
        path = tmp_path / "wrapped.elf"
        subprocess.run(["objcopy", "-O", "elf32-i386",
                        build(guests, "lbr_basic", multiboot=True), path], check=True)
    machine, printed = start(path)
    assert machine.run(20_000_000).kind == "exit"
    assert printed.endswith(b" passed, 0 failed\n")
    assert machine.link.recorder.unexplained == 0


def test_a_multiboot_image_is_told_its_command_line(guests, capfd):
    path = build(guests, "lbr_basic", multiboot=True)
    machine = Machine()
    machine.load(load(path), "quick 7")
    info = machine.uc.reg_read(x86_const.UC_X86_REG_EBX)
    flags, = struct.unpack("<I", machine.uc.mem_read(info, 4))
    command, = struct.unpack("<I", machine.uc.mem_read(info + 16, 4))
    text = bytes(machine.uc.mem_read(command, 100)).split(b"\0")[0].decode()
    assert (flags & 4, text) == (4, f"{path.name} quick 7")
    assert main(["run", "--append", "quick", str(path)]) == 0
    with pytest.raises(ImageError, match="2047 bytes"):
        Machine().load(load(path), "x" * 3000)
    assert main(["run", "--append", "quick", str(build(guests, "lbr_basic"))]) == 2
    assert "multiboot header only" in capfd.readouterr().err


def test_a_multiboot_image_finds_its_modules(guests, tmp_path, capfd):
    path = build(guests, "lbr_basic", multiboot=True)
    machine = Machine(memory=4 * MIB)
    machine.load(load(path), modules=[b"first", b"x" * 5000])
    info = machine.uc.reg_read(x86_const.UC_X86_REG_EBX)
    flags, = struct.unpack("<I", machine.uc.mem_read(info, 4))
    count, listed = struct.unpack("<II", machine.uc.mem_read(info + 20, 8))
    assert (flags & 8, count) == (8, 2)
    rows = [struct.unpack("<4I", machine.uc.mem_read(listed + 16 * n, 16)) for n in range(2)]
    assert bytes(machine.uc.mem_read(rows[0][0], 5)) == b"first"
    assert bytes(machine.uc.mem_read(rows[1][0], 5000)) == b"x" * 5000
    assert all(start % 4096 == 0 and end <= 4 * MIB for start, end, _, _ in rows)
    assert machine.run(20_000_000).kind == "exit"
    with pytest.raises(ImageError, match="do not fit"):
        Machine(memory=4 * MIB).load(load(path), modules=[bytes(4 * MIB)])
    with pytest.raises(ImageError, match="more than 32"):
        Machine().load(load(path), modules=[b"x"] * 33)
    file = tmp_path / "module"
    file.write_bytes(b"contents")
    assert main(["run", "--module", str(file), str(path)]) == 0
    assert main(["run", "--module", str(file), str(build(guests, "lbr_basic"))]) == 2
    assert main(["run", "--module", str(tmp_path / "none"), str(path)]) == 2
    assert capfd.readouterr().err.count("\n") == 2


def test_base_memory_is_in_the_bios_data_area(guests):
    machine, _ = start(build(guests, "lbr_basic", multiboot=True))
    assert struct.unpack("<H", machine.uc.mem_read(0x413, 2)) == (639,)
    assert struct.unpack("<H", machine.uc.mem_read(0x40E, 2)) == (0x9FC0,)


def test_the_report_shows_the_text_screen(guests):
    machine, _ = start(build(guests, "lbr_basic", multiboot=True))
    assert "screen:" not in report(machine, machine.run(100))
    info = machine.uc.reg_read(x86_const.UC_X86_REG_EBX)
    screen, pitch, width, height, bits, kind = struct.unpack(
        "<QIIIBB", machine.uc.mem_read(info + 88, 22))
    assert (pitch, width, height, bits, kind) == (160, 80, 25, 16, 2)
    machine.uc.mem_write(screen + pitch + 4, b"H\x07i\x07")
    assert report(machine, machine.run(100)).endswith("screen:\n\n  Hi")


@pytest.mark.parametrize(("flags", "taken"), [(0, True), (3, True), (4, True), (8, False)])
def test_what_a_multiboot_header_may_ask_for(tmp_path, flags, taken):
    path = tmp_path / "kernel"
    header = struct.pack("<III", 0x1BADB002, flags, -0x1BADB002 - flags & 0xFFFFFFFF)
    path.write_bytes(elf().ljust(124, b"\0") + header)
    if taken:
        assert load(path).multiboot
    else:
        with pytest.raises(ImageError, match="asks for 0x8"):
            load(path)


def test_every_model_makes_a_machine():
    """Without what the engine lacks, each is still a model that makes sense."""
    for model in MODELS:
        assert Machine(model, memory=4 * MIB).processor.model.name == model


def test_a_broken_facility_is_noticed(guests):
    """The selftests can fail: here the host takes the LBRs away without the guest's knowledge."""
    machine, printed = start(build(guests, "lbr_basic"))
    while (ending := machine.run(40)).kind == "limit":
        machine.processor.lbr.clear()
    assert (ending.kind, ending.code) == ("exit", 1)
    assert b"FAIL" in printed


# Facilities that lack something: (what notices, what WRMSR of a register writes instead)
LACKING = {
    "DEPTH resets nothing": ("lbr_callstack", IA32_LBR_DEPTH, lambda value: None),
    "no call-stack mode": ("lbr_callstack", IA32_LBR_CTL, lambda value: value & ~8),
    "no filter by CPL": ("lbr_rings", IA32_LBR_CTL,
                         lambda value: value | 6 if value & 1 else value),
    "no filter by class": ("lbr_basic", IA32_LBR_CTL,
                           lambda value: value | 0x7F0000 if value & 1 else value),
    "no freeze on PMI": ("lbr_pmi", IA32_DEBUGCTL, lambda value: value & ~0x800),
}


@pytest.mark.parametrize("lack", LACKING)
def test_a_facility_that_lacks_something_is_noticed(guests, monkeypatch, lack):
    name, register, changed = LACKING[lack]
    wrmsr = Processor.wrmsr

    def lacking(self, index, value, host=False):
        value = changed(value) if index == register else value
        if value is not None:
            wrmsr(self, index, value, host)

    machine, printed = start(build(guests, name))
    monkeypatch.setattr(Processor, "wrmsr", lacking)
    assert machine.run(30_000_000).code == 1
    assert b"FAIL" in printed


@pytest.mark.parametrize(("owner", "lack", "name"), [
    (Apic, "performance_monitoring_interrupt", "lbr_pmi"), (Processor, "xrstors", "lbr_xsave"),
    (Processor, "debug_exception", "debug")])
def test_a_facility_without_something_is_noticed(guests, monkeypatch, owner, lack, name):
    machine, printed = start(build(guests, name))
    monkeypatch.setattr(owner, lack, lambda *args, **options: None)
    assert machine.run(30_000_000).code == 1
    assert b"FAIL" in printed


def test_the_command(guests, capfd):
    assert main(["run", str(build(guests, "lbr_callstack"))]) == 0
    assert capfd.readouterr().out.endswith(" passed, 0 failed\n")
    assert main(["run", "--limit", "100", str(build(guests, "lbr_callstack"))]) == 124
    assert "no end after" in capfd.readouterr().err
    assert main(["run", "--limit", "0", str(build(guests, "lbr_callstack"))]) == 2
    assert main(["run", "--model", "pentium-9", str(build(guests, "lbr_callstack"))]) == 2
    assert main(["run", str(guests / "absent.elf")]) == 2
    assert capfd.readouterr().err.count("\n") == 3


def test_without_unicorn_one_line_says_so(guests, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "unicorn", None)
    assert main(["run", str(build(guests, "lbr_callstack"))]) == 2
    assert "pip install 'pylbr[unicorn]'" in capfd.readouterr().err


def test_the_command_saves_goes_on_and_traces(guests, tmp_path, capfd):
    guest, middle = str(build(guests, "lbr_callstack")), str(tmp_path / "middle.vm")
    assert main(["run", "--pause", "2000", "--save", middle, guest]) == 0
    assert "paused after 2" in capfd.readouterr().err
    trace = tmp_path / "rest.arrow"
    assert main(["run", "--trace", str(trace), middle]) == 0
    assert capfd.readouterr().out.endswith(" passed, 0 failed\n")
    with open_trace(trace) as branches:
        assert branches.count > 1000
    assert main(["run", "--save", middle, guest]) == 2
    assert main(["run", "--pause", "900000000", "--save", middle, guest]) == 1
    assert "nothing was saved" in capfd.readouterr().err


def test_a_trace_of_the_guest_agrees_with_its_records(guests):
    parts = []
    machine = Machine(trace=parts.append)
    machine.load(load(build(guests, "bad", "-DCASE=6", "-DMSRS=1")))
    machine.run(5_000)
    trace = np.concatenate(parts)
    taken = trace[trace["class"] != 6]
    newest = machine.processor.records()
    np.testing.assert_array_equal(newest["from"], taken["from"][:-33:-1])
    assert trace["instructions"].sum() <= machine.link.recorder.instructions


# Guests that crash: (kind, in the report)
GRIEF = {
    0: ("shutdown", "triple fault (exceptions 6, 13, 8, 13)"),
    1: ("shutdown", "triple fault"),
    2: ("shutdown", "triple fault (exceptions 14, 8, 14)"),
    3: ("shutdown", "triple fault (exceptions 3, 13, 8, 13)"),
    4: ("stuck", "access to 0xc0000000, where nothing is"),
    5: ("stuck", "access to 0xc0000000, where nothing is"),
    6: ("limit", "no end after"),
    7: ("halt", "nothing that could wake it"),
    8: ("shutdown", "triple fault (exceptions 14, 8, 14)"),
    9: ("shutdown", "triple fault"),
    12: ("shutdown", "triple fault"),
    13: ("limit", "no end after"),
    14: ("exit", "exit code 99"),
    15: ("exit", "exit code 0"),
    16: ("exit", "exit code 0"),
}


@pytest.mark.parametrize("case", GRIEF)
def test_a_guest_that_crashes_is_reported(guests, case):
    kind, said = GRIEF[case]
    machine, _ = start(build(guests, "bad", f"-DCASE={case}", "-DMSRS=1"))
    ending = machine.run(3_000 if case == 13 else 300_000)
    text = report(machine, ending)
    assert (ending.kind, said in text) == (kind, True), text
    assert re.search(r"rip 0x[0-9a-f]+", text)
    if kind in ("shutdown", "stuck"):
        # How it got there: the LBRs were on, and say so with names.
        assert re.search(r"^  0  0x[0-9a-f]+.* -> 0x", text, re.MULTILINE), text
        assert "<test" in text


def test_paging_switched_off_in_long_mode_ends_somehow(guests):
    machine, _ = start(build(guests, "bad", "-DCASE=11", "-DMSRS=1"))
    assert machine.run(300_000).kind in ("shutdown", "stuck", "limit")


@pytest.mark.parametrize(("count", "model"), [
    (0x10, "sapphire-rapids"), (0x10, "skylake"),
    pytest.param(0x80, "sapphire-rapids", marks=pytest.mark.slow)])
def test_every_msr_with_every_pattern(guests, count, model):
    machine, printed = start(
        build(guests, "bad", "-DCASE=10", f"-DMSRS={count}"), model=model)
    ending = machine.run(50_000_000)
    assert (ending.kind, ending.code) == ("exit", 0), report(machine, ending)


def test_legacy_records_have_no_class_to_name(guests, capfd):
    guest = str(build(guests, "bad", "-DCASE=2", "-DMSRS=1"))
    assert main(["run", "--model", "skylake", guest]) == 134
    assert re.search(r"  0  0x\w+ <test[^>]*> -> 0x8000000000\n", capfd.readouterr().err)


def test_the_report_of_a_jump_into_nowhere_names_the_jump(guests, capfd):
    assert main(["run", str(build(guests, "bad", "-DCASE=2", "-DMSRS=1"))]) == 134
    out = capfd.readouterr()
    assert "shutdown: triple fault" in out.err
    assert re.search(r"  0  0x\w+ <test[^>]*> -> 0x8000000000  NEAR_IND_JMP", out.err)
    assert "code at rip: not mapped" in out.err


# Images

def elf(**changes):
    """A 64-bit ELF executable of one segment with HLT in it."""
    fields = {"magic": b"\x7fELF", "cls": 2, "data": 1, "type": 2, "machine": 62,
              "entry": 0x100000, "phoff": 64, "phnum": 1, "p_type": 1, "offset": 120,
              "vaddr": 0x100000, "paddr": 0x100000, "filesz": 1, "memsz": 1}
    fields |= changes
    head = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH", fields["magic"], fields["cls"], fields["data"], 1, 0,
        fields["type"], fields["machine"], 1, fields["entry"], fields["phoff"], 0, 0, 64, 56,
        fields["phnum"], 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", fields["p_type"], 7, fields["offset"], fields["vaddr"],
                          fields["paddr"], fields["filesz"], fields["memsz"], 0x1000)
    return head + segment + b"\xf4"


def test_sleep_counts_against_the_limit(guests):
    machine, _ = start(build(guests, "timer"))
    assert machine.run(1_000_000).kind == "limit"
    assert machine.link.recorder.instructions < 100_000
    assert machine.run(2_000_000_000).kind == "exit"


@pytest.mark.parametrize(("said", "code"), [(0, 0), (77, 77), (255, 255), (256, 255),
                                            (0xFFFFFFFF, 255)])
def test_exit_codes_never_become_a_pass(tmp_path, said, code):
    """Written with 32 bits, as test images do."""
    path = tmp_path / "exit.elf"
    program = b"\x66\xba\xf4\x00\xb8" + struct.pack("<I", said) + b"\xef"
    size = len(program) + 1
    path.write_bytes(elf(filesz=size, memsz=size)[:-1] + program + b"\xf4")
    assert main(["run", str(path)]) == code


def test_the_smallest_image_halts(tmp_path):
    path = tmp_path / "halt.elf"
    path.write_bytes(elf())
    assert start(path)[0].run(100).kind == "halt"


@pytest.mark.parametrize(("changes", "said"), [
    ({"magic": b"\x7fELG"}, "no ELF file"), ({"machine": 183}, "not for x86"),
    ({"type": 3}, "-no-pie"), ({"entry": 0x200000}, "in no segment"),
    ({"filesz": 100, "memsz": 1}, "damaged"), ({"filesz": 100, "memsz": 100}, "truncated"),
    ({"phnum": 60000}, "damaged"), ({"phoff": 1 << 60}, "damaged"), ({"machine": 3}, "multiboot"),
])
def test_bad_images_are_one_line(tmp_path, changes, said):
    path = tmp_path / "bad.elf"
    path.write_bytes(elf(**changes))
    with pytest.raises(ImageError, match=said) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("changes", [
    {"paddr": 1 << 40, "vaddr": 0x100000}, {"memsz": 1 << 62}, {"paddr": 63 * MIB + 0xF0000,
                                                              "memsz": 0x10000}])
def test_segments_beyond_the_memory(tmp_path, changes):
    path = tmp_path / "big.elf"
    path.write_bytes(elf(**changes))
    with pytest.raises(ImageError, match="does not fit"):
        start(path)


def test_memory_sizes():
    for size in (0, 3 * MIB, 4 * MIB + 4096, 4096 * MIB):
        with pytest.raises(ConfigurationError, match="memory"):
            Machine(memory=size)


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
       st.integers(0, 121))
@settings(max_examples=200, deadline=None)
def test_damaged_images_never_do_worse_than_an_error(tmp_path_factory, edits, length):
    data = bytearray(elf())
    for at, value in edits:
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.elf"
    path.write_bytes(data[:length] if length < 121 else data)
    try:
        machine, _ = start(path)
    except ImageError:
        return
    assert machine.run(1_000).kind in ("halt", "limit", "shutdown", "stuck")


def test_random_code_never_takes_the_host_along(guests):
    """Many short programs of random bytes, in a process of its own: it must end well."""
    program = f"""
import random, sys
sys.path.insert(0, {str(ROOT)!r})
from pylbr.embed.image import Image
from pylbr.embed.machine import Machine
from pylbr.embed.report import report
kinds = set()
for seed in range(40):
    code = random.Random(seed).randbytes(4096)
    machine = Machine(memory=4 << 20)
    machine.load(Image("random", 0x100000, False, ((0x100000, 4096, code),), ()))
    machine.processor.wrmsr(0x14CE, 0x7F0007)
    ending = machine.run(20_000)
    assert report(machine, ending)
    kinds.add(ending.kind)
print(sorted(kinds))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "shutdown" in result.stdout
