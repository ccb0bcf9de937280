"""Two engines over one memory: translations, starting processors, interrupts, LBRs of each."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, UC_PROT_ALL, Uc
from unicorn import x86_const as reg

from pylbr.embed.engine import Engine
from pylbr.embed.image import Image
from pylbr.embed.machine import MIB
from pylbr.embed.multiprocessor import MOST_PROCESSORS, QUANTUM, Multiprocessor
from pylbr.embed.savefile import save
from pylbr.embed.shared_code import SharedCode
from pylbr.errors import ConfigurationError, StateError
from tests.embed.assembler import assemble

# Translations

CODE, STORE = 0x1000, 0x3000
RETURN_ONE = b"\xb8\x01\0\0\0\xf4"  # MOV EAX, 1; HLT
PATCH = b"\xc6\x04\x25\x01\x10\0\0\x02\xf4"  # MOV BYTE [CODE + 1], 2; HLT


@pytest.fixture
def shared():
    """Two engines over the same memory, and what each knows of its code."""
    memory = np.zeros((64, 512), np.uint64)
    engines = []
    for _ in range(2):
        uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.mem_map_ptr(0, memory.nbytes, UC_PROT_ALL, memory.ctypes.data)
        uc.ctl_exits_enabled(True)
        engines.append(uc)
    engines[0].mem_write(CODE, RETURN_ONE)
    engines[0].mem_write(STORE, PATCH)
    return engines, [Shared(Engine(uc), memory) for uc in engines]


class Shared(SharedCode):
    def __init__(self, engine, memory):
        super().__init__(engine, engine.code_pages(memory.nbytes), memory)

    def enter(self):
        super().enter()
        self._engine.enter(self._pages, self._engine.uc.reg_read(reg.UC_X86_REG_RIP))


def _run(uc, at=CODE):
    uc.emu_start(at, 0)
    return uc.reg_read(reg.UC_X86_REG_EAX)


def test_an_engine_keeps_translations_of_code_that_another_one_changes(shared):
    """What `SharedCode` is for."""
    (first, second), _ = shared
    assert (_run(first), _run(second)) == (1, 1)
    _run(first, STORE)
    assert _run(first) == 2  # its own write
    assert second.mem_read(CODE, 2) == b"\xb8\x02"
    assert _run(second) == 1


def test_code_that_others_have_changed_is_translated_again(shared):
    (first, second), (_, pages) = shared
    second.reg_write(reg.UC_X86_REG_RIP, CODE)
    pages.enter()
    assert _run(second) == 1
    pages.leave()
    _run(first, STORE)
    second.reg_write(reg.UC_X86_REG_RIP, CODE)
    pages.enter()
    assert (_run(second), pages.flushes) == (2, 1)


def test_other_pages_and_own_writes_cost_no_translations(shared):
    (first, second), (_, pages) = shared
    second.reg_write(reg.UC_X86_REG_RIP, CODE)
    pages.enter()
    assert _run(second) == 1
    _run(second, STORE)
    pages.leave()
    first.mem_write(0x8000, b"\1")
    second.reg_write(reg.UC_X86_REG_RIP, CODE)
    pages.enter()
    assert (_run(second), pages.flushes) == (2, 0)


# A guest with two processors

BOOT, DATA = 0x101000, 0x200000
AP_LOOP, BOOT_LOOP = "ap_loop", "boot_loop"
GUEST = """
.code64
.set LAPIC, 0xfee00000
.set SHARED, 0x200000
    mov $LAPIC, %ebx
    movl $0x1ff, 0xf0(%rbx)
    mov %cr3, %rax
    mov %eax, SHARED + 0x20
    sgdt SHARED + 0x30
    lea trampoline(%rip), %rsi
    mov $0x8000, %edi
    mov $(trampoline_end - trampoline), %ecx
    rep movsb
    movl $0x01000000, 0x310(%rbx)
    movl $0x00004500, 0x300(%rbx)      # INIT
    movl $0x01000000, 0x310(%rbx)
    movl $0x00004608, 0x300(%rbx)      # SIPI, 8000H
    movl $0x01000000, 0x310(%rbx)
    movl $0x00004608, 0x300(%rbx)      # a second one, as operating systems send it: ignored
1:  cmpl $0, SHARED                    # the other is there
    je 1b
    call lbr
    mov $100000, %ecx
boot_loop:
    lock incl SHARED + 8
    dec %ecx
    jnz boot_loop
    cmpl $0x9090, SHARED + 0x40
    movw $0x9090, patched(%rip)        # the other one's loop ends
    movl $1, SHARED + 0x10
1:  cmpl $2, SHARED
    jne 1b
    movl $0x01000000, 0x310(%rbx)
    movl $0x00004040, 0x300(%rbx)      # a fixed interrupt: wakes it from HLT
1:  cmpl $3, SHARED
    jne 1b
    xor %eax, %eax
    out %al, $0xf4

lbr:
    mov $0x14ce, %ecx
    mov $0x7f0001 | 2, %eax            # LBREn, OS
    xor %edx, %edx
    wrmsr
    ret

.code16
trampoline:
    cli
    mov %cs, %ax                       # 800H
    mov %ax, %ds
    mov $0x1a0, %ecx                   # as Linux does in real mode
    rdmsr
    mov %eax, %cs:(real - trampoline)
    lgdtl gdt_pointer - trampoline
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x18, $(0x8000 + protected - trampoline)
real: .long 0
gdt_pointer:
    .word 31
    .long 0x8000 + gdt - trampoline
.balign 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
.code32
protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %ss
    mov $0x620, %eax
    mov %eax, %cr4
    mov SHARED + 0x20, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    ljmpl $0x08, $(0x8000 + long - trampoline)
.code64
long:
    mov $ap, %eax
    jmp *%rax
trampoline_end:

ap: mov $0x300000, %esp
    mov $LAPIC, %ebx
    movl $0x1ff, 0xf0(%rbx)
    mov 0x8000 + real - trampoline, %eax
    mov %eax, SHARED + 0x28
    mov 0x20(%rbx), %eax
    mov %eax, SHARED + 0x24            # APIC ID
    mov $1, %eax
    cpuid
    mov %ebx, SHARED + 0x2c
    mov $LAPIC, %ebx
    mov $idt, %edi                     # vector 40H
    lea handler(%rip), %rax
    mov %ax, 0x400(%rdi)
    movw $0x08, 0x402(%rdi)
    movw $0x8e00, 0x404(%rdi)
    shr $16, %rax
    mov %ax, 0x406(%rdi)
    movq $0, 0x408(%rdi)
    lidt idt_pointer(%rip)
    call lbr
    movl $1, SHARED
    mov $100000, %ecx
ap_loop:
    lock incl SHARED + 8
    dec %ecx
    jnz ap_loop
1:  incl SHARED + 0x40
patched:
    jmp 1b
    movl $2, SHARED
    sti
    hlt
    cli
    movl $3, SHARED
1:  hlt
    jmp 1b
handler:
    movl $0, 0xb0(%rbx)
    iretq
.balign 16
idt_pointer:
    .word 0x40f
    .quad idt
idt: .fill 0x410, 1, 0
"""


def _machine(processors=2):
    machine = Multiprocessor(processors=processors, memory=16 * MIB)
    code = assemble(GUEST, BOOT)
    machine.load(Image("two", BOOT, False, ((BOOT, len(code), code),
                                            (DATA, 0x1000, bytes(0x1000))), ()))
    return machine


def _words(machine, *offsets):
    return [struct.unpack("<I", machine.uc.mem_read(DATA + at, 4))[0] for at in offsets]


@pytest.fixture(scope="module")
def ended():
    machine = _machine()
    ending = machine.run(10_000_000)
    assert (ending.kind, ending.code) == ("exit", 0), ending
    return machine


def test_a_second_processor_starts_in_real_mode_and_gets_to_long_mode(ended):
    assert _words(ended, 0, 0x24, 0x2C)[:2] == [3, 1 << 24]
    assert _words(ended, 0x2C)[0] >> 24 == 1
    assert _words(ended, 0x28) == [ended.platform.msr(0x1A0, None)]  # read in real mode


def test_locked_instructions_lose_nothing(ended):
    assert _words(ended, 8) == [200_000]
    assert ended.turns > 2 * 100_000 * 3 // QUANTUM  # while they contended


def test_code_that_the_other_processor_changes(ended):
    """The second one's loop ended when the first had patched its jump; so it was seen."""
    assert ended.cpus[1].shared_code.flushes >= 1


def test_each_processor_records_its_own_branches(ended):
    """The last 32 of each are those of its own loops, interrupt and wait."""
    code = assemble(GUEST, BOOT)
    ap = BOOT + code.index(bytes.fromhex("bc00003000"))  # MOV ESP, 300000H
    first, second = (cpu.processor.records() for cpu in ended.cpus)
    for records in (first, second):
        assert (records["from"] != 0).all()
    assert ((first["from"] < ap) & (first["to"] < ap)).all()
    assert ((second["from"] >= ap) & (second["to"] >= ap)).all()
    assert all(cpu.link.recorder.unexplained == 0 for cpu in ended.cpus)


def test_the_clock_is_common(ended):
    instructions = [cpu.link.recorder.instructions for cpu in ended.cpus]
    assert min(instructions) > 300_000
    assert ended.clock == sum(instructions)  # never were both asleep
    assert all(cpu.clock == ended.clock for cpu in ended.cpus)


def test_two_runs_are_identical(ended):
    again = _machine()
    again.run(10_000_000)
    assert again.clock == ended.clock and again.turns == ended.turns
    for one, other in zip(again.cpus, ended.cpus, strict=True):
        assert one.processor.records().tobytes() == other.processor.records().tobytes()
        assert one.link.recorder.taken == other.link.recorder.taken
    assert again.uc.mem_read(0, 16 * MIB) == ended.uc.mem_read(0, 16 * MIB)


def test_a_run_in_pieces_is_the_same(ended):
    pieces = _machine()
    while pieces.run(77_777).kind == "limit":
        pass
    assert _words(pieces, 0, 8) == [3, 200_000]


def test_processors_that_nobody_starts_do_not_run():
    machine = _machine(MOST_PROCESSORS)
    assert machine.run(10_000_000).kind == "exit"
    assert [cpu.link.recorder.instructions > 0 for cpu in machine.cpus] == [
        True, True, False, False]


def test_what_is_not_there(ended, tmp_path):
    with pytest.raises(StateError, match="2 processors cannot be saved"):
        save(ended, tmp_path / "two.vm")
    for count in (1, MOST_PROCESSORS + 1):
        with pytest.raises(ConfigurationError, match="processors"):
            Multiprocessor(processors=count)
