"""MOV CR3 between tables that map other code, or the same, at one address."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn import x86_const as reg

from pylbr.cpu import Processor
from pylbr.embed.unicorn import attach
from tests.manual import IA32_LBR_CTL, RECORD_ALL

MEMORY, MAIN, FUNCTION, STACK = 1 << 18, 0x20000, 0x30000, 0x8000
#: Page tables, and where each has the page of the function.
TABLES, PLACES = (0x1000, 0x2000), (0x30000, 0x31000)
#: Of one size; the last of their branches but the return, if any.
FUNCTIONS = {
    b"\x90\x90\xc3": None,                      # NOP; NOP; RET
    b"\x31\xc0\xc3": None,                      # XOR EAX, EAX; RET
    b"\xeb\x00\xc3": (FUNCTION, FUNCTION + 2),  # JMP to the next instruction; RET
}
MOV_CR3, CALL = 8, 5  # bytes


def guest(functions):
    """An engine in long mode with these functions at FUNCTION, one under each of TABLES."""
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, MEMORY)
    for n, (top, place, function) in enumerate(zip(TABLES, PLACES, functions, strict=True)):
        pointers, directory, table = (0x3000 + 0x3000 * n + 0x1000 * i for i in range(3))
        for at, value in (top, pointers), (pointers, directory), (directory, table):
            uc.mem_write(at, struct.pack("<Q", value | 3))
        pages = [page * 4096 for page in range(MEMORY >> 12)]
        pages[FUNCTION >> 12] = place
        uc.mem_write(table, struct.pack(f"<{len(pages)}Q", *(page | 3 for page in pages)))
        uc.mem_write(place, function)
    uc.msr_write(0xC0000080, 0x500)  # EFER: LME, LMA
    uc.reg_write(reg.UC_X86_REG_CR4, 0x20)
    uc.reg_write(reg.UC_X86_REG_CR3, TABLES[0])
    uc.reg_write(reg.UC_X86_REG_CR0, 0x80000033)
    uc.reg_write(reg.UC_X86_REG_RSP, 0xF000)
    return uc


def program(switches):
    """The guest's code: under each of these tables a call; and where the calls are."""
    code, calls = b"", []
    for n in switches:
        code += b"\xb8" + struct.pack("<I", TABLES[n]) + b"\x0f\x22\xd8"  # MOV EAX; MOV CR3, RAX
        calls.append(MAIN + len(code))
        code += b"\xe8" + struct.pack("<i", FUNCTION - (MAIN + len(code) + CALL))
    return code, calls


def run(functions, switches):
    """Branches, oldest first, and the recorder."""
    uc = guest(functions)
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, RECORD_ALL)
    branches = []
    link = attach(uc, processor, trace=lambda batch: branches.extend(
        batch[["from", "to"]].tolist()))
    code, _ = program(switches)
    uc.mem_write(MAIN, code)
    uc.emu_start(MAIN, MAIN + len(code))
    link.settle()
    assert link.recorder.unexplained == 0
    return branches, link.recorder


@given(functions=st.tuples(*2 * [st.sampled_from(list(FUNCTIONS))]),
       switches=st.lists(st.integers(0, 1), min_size=1, max_size=12))
def test_branches_of_the_code_that_is_mapped(functions, switches):
    branches, _ = run(functions, switches)
    expected = []
    for n, call in zip(switches, program(switches)[1], strict=True):
        jump = FUNCTIONS[functions[n]]
        expected += [(call, FUNCTION), *([jump] if jump else []),
                     (FUNCTION + 2, call + CALL)]
    assert branches == expected


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_same_bytes_are_described_once(function):
    """However many tables map them, and however often these change."""
    blocks = [run(2 * [function], switches)[1].classified for switches in ([0], 40 * [0, 1])]
    calls = 2 * 40 - 1
    assert blocks[1] - blocks[0] == 2 * calls  # the blocks around each further call, none of it


def test_other_bytes_are_described_anew():
    one, other, _ = FUNCTIONS
    same, changed = (run(pair, 5 * [0, 1])[1].classified for pair in ((one, one), (one, other)))
    assert changed - same == 9
