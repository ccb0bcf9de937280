"""Unicorn with LBRs: exact branches, registers, faults, and nothing worse than an exception."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from unicorn import (
    UC_ARCH_X86,
    UC_HOOK_CODE,
    UC_HOOK_INSN,
    UC_HOOK_INTR,
    UC_HOOK_MEM_FETCH_UNMAPPED,
    UC_MODE_64,
    Uc,
    UcError,
)
from unicorn import x86_const as reg

from lbrcore import BranchClass
from pylbr.cpu import Processor
from pylbr.embed.engine import GuestFault
from pylbr.embed.unicorn import attach
from pylbr.errors import ConfigurationError, GeneralProtection
from pylbr.x86 import classify
from tests.embed.assembler import assemble
from tests.manual import (
    IA32_A_PMC0,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    RECORD_ALL,
)

CODE, STACK, GDT = 0x10000, 0x80000, 0x1000
ALL = RECORD_ALL


def engine(source, **registers):
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, 0x100000)
    uc.mem_write(GDT, struct.pack("<3Q", 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF))
    uc.reg_write(reg.UC_X86_REG_GDTR, (0, GDT, 0x17, 0))
    uc.reg_write(reg.UC_X86_REG_CS, 8)
    uc.reg_write(reg.UC_X86_REG_SS, 16)
    uc.reg_write(reg.UC_X86_REG_RSP, STACK)
    for name, value in registers.items():
        uc.reg_write(getattr(reg, f"UC_X86_REG_{name.upper()}"), value)
    code = assemble(source, CODE)
    uc.mem_write(CODE, code)
    return uc, CODE + len(code)


def run(source, processor=None, attached=None, **registers):
    """Trace of `source`, run with the LBRs on; and the link."""
    uc, end = engine(source, **registers)
    processor = processor or Processor("sapphire-rapids")
    if processor.model.arch:
        processor.wrmsr(IA32_LBR_CTL, ALL)
    parts = []
    link = attach(uc, processor, trace=parts.append, **(attached or {}))
    uc.emu_start(CODE, end)
    link.settle()
    return np.concatenate(parts) if parts else np.zeros(0), link


def single_stepped(source, **registers):
    """The same out of a hook on every instruction: an own and slow account."""
    uc, end = engine(source, **registers)
    steps = []
    uc.hook_add(UC_HOOK_CODE, lambda uc, address, size, data: steps.append(
        (address, size, bytes(uc.mem_read(address, size)))))
    uc.emu_start(CODE, end)
    steps.append((uc.reg_read(reg.UC_X86_REG_RIP), 0, b""))
    branches, since = [], 0
    for (address, size, code), (after, _, _) in zip(steps, steps[1:], strict=False):
        decoded = classify(code, address)
        since += not (address == after and decoded.branch is None)  # under REP: retires once
        if decoded.branch in (None, BranchClass.ZERO_CALL):
            continue
        taken = after != address + size or decoded.branch != BranchClass.COND
        branches.append((address, after, decoded.branch if taken else BranchClass.NOT_TAKEN,
                         since))
        since = 0
    return branches


def told(trace):
    return [(int(b["from"]), int(b["to"]), int(b["class"]), int(b["instructions"]))
            for b in trace]


PROGRAMS = {
    "every near class": """
        mov $7, %ebx
    1:  call 2f
        lea 3f(%rip), %rax
        jmp *%rax
        nop
    3:  lea 2f(%rip), %rax
        call *%rax
        dec %ebx
        jnz 1b
        jmp 4f
    2:  test $1, %bl
        jz 5f
        nop
    5:  ret
    4:  nop
    """,
    "loops and counts": """
        mov $5, %ecx
    1:  inc %eax
        loop 1b
        mov $3, %ecx
    2:  cmp $9, %eax
        loopne 2b
        jrcxz 3f
        nop
    3:  xor %ecx, %ecx
        jrcxz 4f
        nop
    4:  nop
    """,
    "a string instruction is no branch": """
        mov $2, %ebx
    1:  mov $9, %ecx
        mov $0x40000, %edi
        rep stosb
        mov $3, %ecx
        mov $0x40000, %esi
        repe cmpsb
        dec %ebx
        jnz 1b
    """,
    "straight code longer than a block": """
        mov $3, %ebx
    1:  .rept 1300
        inc %eax
        .endr
        dec %ebx
        jnz 1b
    """,
    "recursion": """
        mov $9, %edi
        call 1f
        jmp 9f
    1:  cmp $2, %edi
        jb 2f
        push %rdi
        dec %edi
        call 1b
        pop %rdi
        sub $2, %edi
        call 1b
    2:  ret
    9:  nop
    """,
    "code that writes code": """
        mov $4, %ebx
    1:  movb $0x74, 2f(%rip)        /* jz */
        test $1, %bl
        jnz 3f
        movb $0x75, 2f(%rip)        /* jnz */
    3:  test %ebx, %ebx
    2:  jz 4f
        inc %eax
    4:  dec %ebx
        jnz 1b
    """,
    "a block that writes itself": """
        mov $4, %ebx
    1:  nop
        incb 2f+1(%rip)
    2:  mov $0, %al
        dec %ebx
        jnz 1b
    """,
    "a call to the next instruction": """
        mov $3, %ebx
    1:  call 2f
    2:  pop %rax
        dec %ebx
        jnz 1b
    """,
    "calls that push onto their own page": """
        lea 8f(%rip), %rsp
        mov $3, %ebx
    1:  call 2f
        dec %ebx
        jnz 1b
        jmp 9f
    2:  ret
        .fill 64
    8:  .quad 0
    9:  nop
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_branches_are_those_of_single_steps(name):
    trace, link = run(PROGRAMS[name])
    expected = single_stepped(PROGRAMS[name])
    assert len(expected) > 1
    assert told(trace) == expected
    assert link.recorder.unexplained == 0
    newest = [b for b in reversed(expected) if b[2] != BranchClass.NOT_TAKEN][:32]
    records = link.records()[:len(newest)]
    assert [(int(r["from"]), int(r["to"])) for r in records] == [b[:2] for b in newest]


@pytest.mark.parametrize("condition", [
    "o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"])
@pytest.mark.parametrize("compare", [(0, 0), (1, 2), (2, 1), (0x80000000, 1), (1, 0x80000000)])
def test_a_taken_jump_to_the_next_instruction_is_a_record(condition, compare):
    """Seen in no address: the flags tell."""
    source = f"""
        mov ${compare[0]}, %eax
        mov ${compare[1]}, %ecx
        cmp %ecx, %eax
        j{condition} 1f
    1:  mov $0, %ebx
        set{condition} %bl
    """
    trace, link = run(source)
    taken = link._uc.reg_read(reg.UC_X86_REG_RBX)
    assert [int(c) for c in trace["class"]] == [
        BranchClass.COND if taken else BranchClass.NOT_TAKEN]
    assert link.recorder.taken == taken


@pytest.mark.parametrize(("source", "count"), [
    ("mov $2, %ecx\n1: loop 2f\n2: loop 3f\n3: nop", 1),
    ("mov $2, %ecx\nxor %eax, %eax\nloope 2f\n2: nop", 1),
    ("mov $2, %ecx\nxor %eax, %eax\nloopne 2f\n2: nop", 0),
    ("xor %ecx, %ecx\njrcxz 2f\n2: nop", 1),
    ("mov $1, %ecx\njrcxz 2f\n2: nop", 0),
    ("movabs $0x100000000, %rcx\njecxz 2f\n2: nop", 1),
])
def test_counted_jumps_to_the_next_instruction(source, count):
    assert run(source)[1].recorder.taken == count


def test_registers_from_inside():
    """A guest that programs its LBRs and reads them back."""
    _, link = run("""
        mov $0x14cf, %ecx
        mov $8, %eax
        xor %edx, %edx
        wrmsr
        mov $0x14ce, %ecx
        mov $0x7f0007, %eax
        wrmsr
        jmp 1f
    1:  nop
    2:  jmp 3f
    3:  xor %eax, %eax
        wrmsr
        mov $0x1500, %ecx
        rdmsr
        mov %eax, %esi
        mov $0x1601, %ecx
        rdmsr
        mov %eax, %edi
        mov $0x1201, %ecx
        rdmsr
        mov %edx, %r8d
    """)
    newest, older = link.records()[:2]
    read = link._uc.reg_read
    assert read(reg.UC_X86_REG_RSI) == newest["from"] != 0
    assert read(reg.UC_X86_REG_RDI) == older["to"] != 0
    assert read(reg.UC_X86_REG_R8) == int(older["info"]) >> 32
    assert link.processor.rdmsr(IA32_LBR_DEPTH) == 8
    assert not link.records()["from"][2:].any()


def test_refused_writes_fault():
    with pytest.raises(GuestFault) as raised:
        run("mov $0x14cf, %ecx\nmov $7, %eax\nxor %edx, %edx\nwrmsr")
    assert raised.value.vector == 13
    assert isinstance(raised.value.__cause__, GeneralProtection)


def test_msrs_of_the_engine_stay_the_engines():
    _, link = run("""
        mov $0xc0000100, %ecx
        mov $0x1234, %eax
        mov $0x5678, %edx
        wrmsr
        xor %eax, %eax
        rdmsr
    """)
    assert link._uc.reg_read(reg.UC_X86_REG_FS_BASE) == 0x567800001234
    assert link._uc.reg_read(reg.UC_X86_REG_RAX) == 0x1234


def test_other_msrs_can_be_served():
    seen = []
    _, link = run(
        "mov $0x4000, %ecx\nmov $5, %eax\nxor %edx, %edx\nwrmsr\nrdmsr",
        attached={"other_msr": lambda index, value: seen.append((index, value)) or 77})
    assert seen == [(0x4000, 5), (0x4000, None)]
    assert link._uc.reg_read(reg.UC_X86_REG_RAX) == 77


def test_cpuid_tells_of_lbrs():
    _, link = run("mov $0x1c, %eax\nxor %ecx, %ecx\ncpuid")
    answer = [link._uc.reg_read(getattr(reg, f"UC_X86_REG_{r}"))
              for r in ("RAX", "RBX", "RCX", "RDX")]
    assert tuple(answer) == link.processor.cpuid(0x1C, 0)


@pytest.mark.parametrize("name", ["sapphire-rapids", "arch-pebs-2025"])
@pytest.mark.parametrize("code", ["0xf3", "0xf2"])
def test_returns_of_fred_are_undefined_and_not_offered(name, code):
    """The engine has no FRED: ERETU and ERETS raise #UD, no branch leaves from there."""
    uc, end = engine(f"mov $7, %eax\nmov $1, %ecx\ncpuid\njmp 1f\n1: .byte {code}, 0x0f, 1, 0xca")
    processor = Processor(name)
    processor.wrmsr(IA32_LBR_CTL, ALL)
    link = attach(uc, processor)
    with pytest.raises(UcError):
        uc.emu_start(CODE, end)
    assert uc.reg_read(reg.UC_X86_REG_RIP) == end - 4
    assert not uc.reg_read(reg.UC_X86_REG_RAX) >> 17 & 3
    assert [int(r["from"]) for r in link.records()[:2]] == [end - 6, 0]


def test_counters_count_and_overflow_at_the_branch():
    """BR_INST_RETIRED.ALL_BRANCHES in PMC0, set to overflow after five branches."""
    class Told:
        stops = []

        def pmi(self, cpu):
            self.stops.append(int(cpu.records()["to"][0]))

        def pebs(self, cpu, counter, record):
            return None

    told_ = Told()
    processor = Processor("sapphire-rapids", told_)
    processor.wrmsr(IA32_PERFEVTSEL0, 0xC4 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 22)
    processor.wrmsr(IA32_A_PMC0, (1 << 48) - 5)
    processor.wrmsr(IA32_PERF_GLOBAL_CTRL, 1)
    trace, link = run("mov $20, %ebx\n1: test $1, %bl\njz 2f\nnop\n2: dec %ebx\njnz 1b",
                      processor)
    # Branches 1 to 5: jz taken, jnz, jz not taken, jnz, jz.
    taken = [b for b in trace[:5] if b["class"] == 0]
    assert told_.stops == [int(taken[-1]["to"])]
    assert processor.rdmsr(IA32_PMC0) == len(trace) - 5
    assert link.recorder.instructions > 80


def test_instructions_between_branches_are_counted():
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_FIXED_CTR_CTRL, 0x3)
    _, link = run("""
        nop
        mov $0x38f, %ecx
        xor %eax, %eax
        mov $1, %edx
        wrmsr
        nop
        jmp 1f
    1:  nop
        nop
        mov $0x40000000, %ecx
        rdpmc
    """, processor)
    assert link._uc.reg_read(reg.UC_X86_REG_RAX) == 5  # nop, jmp, nop, nop, mov
    assert processor.rdmsr(IA32_FIXED_CTR0) == 6  # and the RDPMC


@pytest.mark.parametrize("allowed", [True, False])
def test_rdpmc_of_user_code_needs_leave(allowed):
    """CR4.PCE (SDM vol. 2, RDPMC); the engine alone has it the wrong way round."""
    uc, end = engine("mov $0x40000000, %ecx\nrdpmc\nmov %eax, %ebx\nnop")
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_FIXED_CTR0, 77)
    if allowed:
        uc.reg_write(reg.UC_X86_REG_CR4, uc.reg_read(reg.UC_X86_REG_CR4) | 1 << 8)
    faults = []
    link = attach(uc, processor, deliver=lambda vector, *rest: (
        faults.append(vector), uc.emu_stop()))
    link.engine.set_cpl(3)
    uc.emu_start(CODE, end)
    assert faults == ([] if allowed else [13])
    assert (uc.reg_read(reg.UC_X86_REG_RBX) == 77) == allowed


def test_an_instruction_hook_cannot_leave_its_block():
    """Why RDMSR and WRMSR are served by UC_HOOK_CODE: a #GP must start its handler at once, and
    a counter must start after the WRMSR that enables it, in the middle of a block."""
    uc, end = engine("cpuid; incq %rbx; nop; hlt")

    def elsewhere(uc, data):
        uc.reg_write(reg.UC_X86_REG_RIP, end)
        uc.reg_write(reg.UC_X86_REG_RBX, 0)
        return True

    uc.hook_add(UC_HOOK_INSN, elsewhere, None, 1, 0, reg.UC_X86_INS_CPUID)
    uc.emu_start(CODE, end)
    assert uc.reg_read(reg.UC_X86_REG_RBX) == 1


def test_exceptions_and_software_interrupts_have_the_vector_of_their_cause():
    """An embedder that delivers by itself: the record follows what it does."""
    uc, end = engine("""
        int $0x80
        ud2
    """)
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, ALL)
    handler = CODE + 0x800
    uc.mem_write(handler, assemble("nop\nnop", handler))
    link = attach(uc, processor)
    uc.hook_add(UC_HOOK_INTR, lambda uc, vector, data: uc.reg_write(
        reg.UC_X86_REG_RIP, handler))
    uc.emu_start(CODE, handler + 2)
    source, to, info = link.records()[0]
    assert (source, to, int(info) >> 56 & 15) == (CODE, handler, 8)


def test_what_the_host_serves_is_no_branch():
    """INT 0x80 and SYSCALL that the embedder carries out; it then continues after them."""
    uc, end = engine("int $0x80\nsyscall\njmp 1f\n1: nop")
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, ALL)
    link = attach(uc, processor)
    seen = []
    uc.hook_add(UC_HOOK_INTR, lambda uc, vector, data: seen.append(vector))
    uc.hook_add(UC_HOOK_INSN, lambda uc, data: seen.append("syscall"), None, 1, 0,
                reg.UC_X86_INS_SYSCALL)
    uc.emu_start(CODE, end)
    records = link.records()
    assert seen == [0x80, "syscall"]
    assert [int(r["from"]) for r in records[:2]] == [CODE + 4, 0]


def test_a_jump_into_nowhere_is_recorded():
    uc, end = engine("mov $0x12345678, %eax\njmp *%rax")
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, ALL)
    link = attach(uc, processor)
    uc.hook_add(UC_HOOK_MEM_FETCH_UNMAPPED, lambda *arguments: False)
    with pytest.raises(UcError):
        uc.emu_start(CODE, end)
    source, to, _ = link.records()[0]
    assert (source, to) == (CODE + 5, 0x12345678)


def test_two_engines_do_not_meet():
    first, link_1 = run("jmp 1f\n1: nop")
    second, link_2 = run("nop\njmp 1f\n1: jmp 2f\n2: nop")
    assert (len(first), len(second)) == (1, 2)
    assert link_1.records()["from"][0] != link_2.records()["from"][0]


def test_starting_elsewhere_makes_no_record():
    uc, end = engine("mov $1, %eax\n ret\n jmp 1f\n1: nop")
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, ALL)
    link = attach(uc, processor)
    uc.mem_write(STACK, struct.pack("<Q", 0x20000))
    uc.emu_start(CODE, 0x20000)
    link.settle()
    uc.emu_start(CODE + 6, end)
    assert [(int(r["from"]), int(r["to"])) for r in link.records()[:3]] == [
        (CODE + 6, CODE + 8), (CODE + 5, 0x20000), (0, 0)]


def test_an_engine_without_references_to_the_link():
    """The hooks keep what they need alive."""
    import gc

    uc, end = engine("mov $100, %ecx\n1: loop 1b")
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, ALL)
    attach(uc, processor)
    gc.collect()
    uc.emu_start(CODE, end)
    assert processor.records()["from"].all()


def test_an_engine_that_has_run_is_recorded_as_a_fresh_one():
    """Its code was translated before there were hooks; so it is with a link that was taken away."""
    uc, end = engine("""
        mov $0x14CE, %ecx
        mov $0x7F0007, %eax
        xor %edx, %edx
        wrmsr
        mov $6, %ecx
        1: dec %ecx
        jnz 1b
        mov $0x14CE, %ecx
        rdmsr
    """)
    uc.emu_start(CODE, end)
    found = []
    for _ in range(2):
        link = attach(uc, Processor("sapphire-rapids"))
        uc.emu_start(CODE, end)
        found.append(link.records().tolist())
        assert uc.reg_read(reg.UC_X86_REG_EAX) == ALL
        link.detach()
    assert found[0] == found[1]
    assert sum(record[0] != 0 for record in found[0]) == 5


def test_detach_stops_recording():
    uc, end = engine("jmp 1f\n1: nop")
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, ALL)
    attach(uc, processor).detach()
    uc.emu_start(CODE, end)
    assert not processor.records()["from"].any()


def test_no_lbrs_no_link():
    from dataclasses import replace

    from pylbr.arch import MODELS

    bare = replace(MODELS["sapphire-rapids"], lbr=None, name="bare")
    with pytest.raises(ConfigurationError, match="bare"):
        attach(engine("nop")[0], Processor(bare))


def test_a_failing_trace_stops_the_run_and_is_told():
    uc, end = engine("mov $100000, %ecx\n1: loop 1b")

    def full(branches):
        raise OSError("disk full")

    link = attach(uc, Processor("sapphire-rapids"), trace=full)
    uc.emu_start(CODE, end)
    assert uc.reg_read(reg.UC_X86_REG_RIP) != end
    with pytest.raises(OSError, match="disk full"):
        link.settle()
