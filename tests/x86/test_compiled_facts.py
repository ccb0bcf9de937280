"""The compiled facts of a block against their twin in plain Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr.x86.compiled_facts import facts_of
from pylbr.x86.facts import decode_block

PRIVILEGED = {"rdmsr", "wrmsr", "xsetbv"}


def expected(code, address):
    block = decode_block(code, address)
    return block.facts, tuple(start for start, _, name in block.mnemonics if name in PRIVILEGED)


ENDS = [
    "c3", "f3c3", "c20800", "ebfe", "eb00", "e800000000", "e810000000", "ffd0", "ff2510000000",
    "0f8401000000", "7000", "e0fe", "e1fe", "e2fe", "67e2fe", "e3fe", "67e3fe", "0f05", "0f07",
    "480f07", "48cf", "cf", "cd80", "cc", "f1", "cb", "48cb", "ff28", "ff18", "f3a4", "f348a5",
    "f2ae", "a4", "0f22d8", "0f22c0", "0f20d8", "0f0138", "660f388200", "0f01d1", "0f30", "0f32",
    "90", "4889c0", "fb", "0f01f8", "48890500000000", "50", "0f0b", "c7f800000000", "0fc738",
    "f4", "0f01ca", "f30f01ca", "f20f01ca", "f30f1efa",
]
MIDDLE = st.sampled_from([bytes.fromhex(code) for code in (
    "90", "4889d8", "488b00", "488903", "50", "58", "0f30", "0f32", "660f6f00", "f00fb10f",
    "31c0", "0f1f4000", "488d0500000000", "f3a4")])


@given(st.lists(MIDDLE, max_size=40), st.sampled_from(ENDS), st.integers(0, 2 ** 64 - 4096))
@settings(deadline=None, max_examples=400)
def test_a_block_has_the_twins_facts(middle, end, address):
    code = b"".join(middle) + bytes.fromhex(end)
    found = facts_of(code, address)
    assert found is None or found == expected(code, address)


@pytest.mark.parametrize("end", ENDS)
def test_each_end_is_known(end):
    """After another instruction the decoder has an answer for all but what is undefined."""
    code = bytes.fromhex("90" + end)
    found = facts_of(code, 0x401000)
    if found is None:
        assert end in ("0f0b",)
    else:
        assert found == expected(code, 0x401000)


@given(st.binary(min_size=1, max_size=40))
@settings(deadline=None, max_examples=600)
def test_any_bytes(code):
    """Whatever the bytes, there is the twin's answer or none, if all of it is known to capstone."""
    found = facts_of(code, 0x7FFF_FFF0)
    known = sum(size for _, size, _ in decode_block(code, 0x7FFF_FFF0).mnemonics) == len(code)
    assert found is None or not known or found == expected(code, 0x7FFF_FFF0)


#: Every one-byte and two-byte opcode with a memory operand of each kind, with and without REX.W.
OPCODES = [prefix + two + bytes([opcode, reg << 3 | 3]) + bytes(8)
           for prefix in (b"", b"\x48", b"\x66") for two in (b"", b"\x0f")
           for opcode in range(256) for reg in range(8)]


def test_stores_of_every_opcode():
    """The compiled answer, where there is one, is the twin's; common ones have one."""
    asked = answered = 0
    for code in OPCODES:
        block = decode_block(code, 0x401000)
        if not block.mnemonics:
            continue
        code = code[:block.mnemonics[0][1]]
        found = facts_of(code, 0x401000)
        asked += 1
        answered += found is not None
        assert found is None or found == expected(code, 0x401000), code.hex()
    assert asked > 6000 and answered > asked / 4


SINGLE = ["fb", "fa", "9d", "9c", "50", "58", "ec", "ef", "ee", "f4", "0f31", "0fa2", "0f01f8",
          "a300000000000000c0", "a200000000000000c0", "aa", "a4", "6c", "d7", "0f2900", "0f2800",
          "c9", "c8100000", "0f01ca", "0fae38", "f390", "0f09", "8ed0", "0f00d8", "0f01c8", "60"]


@pytest.mark.parametrize("code", SINGLE)
def test_a_single_instruction_that_may_store(code):
    """The twin is asked for what may write memory, and agrees for what cannot."""
    code = bytes.fromhex(code)
    found = facts_of(code, 0x401000)
    assert found is None or found == expected(code, 0x401000)


def test_a_real_program():
    """Blocks of the C library, cut where branches end them: nearly all are answered."""
    with Path("/lib/x86_64-linux-gnu/libc.so.6").open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".text")
        code, base = section.data(), section["sh_addr"]
    at = asked = refused = 0
    while at < 150_000:
        block = decode_block(code[at:at + 64], base + at)
        size = sum(length for _, length, _ in block.mnemonics)
        for start, length, name in block.mnemonics:
            if name.startswith(("j", "call", "ret", "syscall")):
                size = start + length - base - at
                break
        part = code[at:at + max(size, 1)]
        found = facts_of(part, base + at)
        asked += 1
        refused += found is None
        assert found is None or found == expected(part, base + at)
        at += max(size, 1)
    assert asked > 5000 and refused < asked / 20
