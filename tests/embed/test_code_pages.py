"""Stores to code by an address that is not executable, in every order with calls of it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn import x86_const as reg

from pylbr.embed.code_pages import CHUNK, PAGE, CodePages
from pylbr.embed.engine import Engine

MEMORY, MAIN, STACK = 1 << 20, 0x10000, 0x8000
#: Where the other address of all memory begins.
ALIAS = 1 << 30
#: Within a page, across two pages, at the end of a chunk, across two chunks, in a chunk of its own.
FUNCTIONS = (0x50040, 0x51FFE, 0x5FFF0, 0x6FFFD, 0x90000)
RETURNS = b"\xb8\0\0\0\0\xc3"  # MOV EAX, 0; RET


def guest():
    """An engine in long mode: all memory at 0, and at ALIAS without execution."""
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.mem_map(0, MEMORY)
    uc.ctl_exits_enabled(True)

    def entry(at, value):
        uc.mem_write(at, struct.pack("<Q", value))

    entry(0x1000, 0x2003)
    entry(0x2000, 0x3003)
    entry(0x2008, 0x5003)
    entry(0x3000, 0x4003)
    entry(0x5000, 0x6003)
    for page in range(MEMORY // PAGE):
        entry(0x4000 + 8 * page, page * PAGE | 3)
        entry(0x6000 + 8 * page, page * PAGE | 3 | 1 << 63)
    for function in FUNCTIONS:
        uc.mem_write(function, RETURNS)
    uc.msr_write(0xC0000080, 0xD00)  # EFER: LME, LMA, NXE
    uc.reg_write(reg.UC_X86_REG_CR4, 0x20)
    uc.reg_write(reg.UC_X86_REG_CR3, 0x1000)
    uc.reg_write(reg.UC_X86_REG_CR0, 0x80000033)
    uc.reg_write(reg.UC_X86_REG_RSP, STACK)
    return uc


def program(steps):
    """The guest's code, and what its calls return; it keeps that at R8."""
    code, values, returned = b"", [0] * len(FUNCTIONS), []
    for kind, which, value in steps:
        address = FUNCTIONS[which]
        if kind == "call":
            code += b"\xe8" + struct.pack("<i", address - (MAIN + len(code) + 5))
            code += b"\x41\x88\x00\x49\xff\xc0"  # MOV [R8], AL; INC R8
            returned.append(values[which])
        elif kind == "stop":
            code += b"\xf4"
        else:  # MOV BYTE [ALIAS + ...], value
            at = ALIAS + address + (1 if kind == "code" else 16)
            code += b"\xc6\x04\x25" + struct.pack("<IB", at, value)
            if kind == "code":
                values[which] = value
    return code + b"\xf4", bytes(returned)


RESULTS = 0xA0000
STEPS = st.lists(st.tuples(
    st.sampled_from(["call", "call", "code", "code", "data", "stop"]),
    st.integers(0, len(FUNCTIONS) - 1), st.integers(0, 255)), max_size=40)


def run(steps, watched=True):
    uc = guest()
    engine = Engine(uc)
    pages = engine.code_pages(MEMORY) if watched else None
    code, expected = program(steps)
    uc.mem_write(MAIN, code)
    uc.reg_write(reg.UC_X86_REG_R8, RESULTS)
    at = MAIN
    while at < MAIN + len(code):
        if pages:
            engine.enter(pages, at)
        uc.emu_start(at, 0)
        at = uc.reg_read(reg.UC_X86_REG_RIP)
    return bytes(uc.mem_read(RESULTS, len(expected))), expected, pages


@given(steps=STEPS)
def test_calls_see_what_was_stored(steps):
    seen, expected, _ = run(steps)
    assert seen == expected


STALE = [("data", 0, 1), ("call", 0, 0), ("code", 0, 7), ("call", 0, 0)]


def test_an_engine_misses_such_a_store():
    """What `CodePages` is for."""
    assert run(STALE, watched=False)[:2] == (b"\0\0", b"\0\7")
    assert run(STALE)[0] == b"\0\7"


@pytest.mark.parametrize("told, value", [(True, 7), (False, 0)])
def test_the_block_that_a_run_begins_with(told, value):
    """The engine does not report it: it is to be told."""
    uc = guest()
    engine = Engine(uc)
    pages = engine.code_pages(MEMORY)
    function, data, code = FUNCTIONS[-1], MAIN, MAIN + PAGE
    uc.mem_write(function, RETURNS[:5] + b"\xf4")
    uc.mem_write(data, b"\xc6\x04\x25" + struct.pack("<IB", ALIAS + function + 16, 1) + b"\xf4")
    uc.mem_write(code, b"\xc6\x04\x25" + struct.pack("<IB", ALIAS + function + 1, 7) + b"\xf4")
    for at in (data, function, code, function):
        if told:
            engine.enter(pages, at)
        uc.emu_start(at, 0)
    assert uc.reg_read(reg.UC_X86_REG_AL) == value


def test_only_the_memory_around_code_is_watched():
    _, _, pages = run([("call", which, 0) for which in range(len(FUNCTIONS))])
    chunks = {MAIN // CHUNK, *(f // CHUNK for f in FUNCTIONS),
              *((f + len(RETURNS)) // CHUNK for f in FUNCTIONS)}
    assert {n for n, watched in enumerate(pages.watched) if watched} == chunks
    touched = {page for f in FUNCTIONS for page in (f // PAGE, (f + len(RETURNS) - 1) // PAGE)}
    assert {n for n, there in enumerate(pages.pages) if there} == {
        MAIN // PAGE, MAIN // PAGE + 1, *touched}


def test_an_address_without_a_page_makes_all_memory_slow():
    uc = guest()
    engine = Engine(uc)
    pages = engine.code_pages(MEMORY)
    engine.enter(pages, 2 * ALIAS)
    assert pages.unknown and all(pages.watched)
    pages.forget()
    assert not pages.unknown and not any(pages.pages) and all(pages.watched)


def test_memory_is_whole_chunks():
    with pytest.raises(ValueError, match="memory: must be a multiple of 65536 bytes, not 4096"):
        CodePages(0, PAGE, (0, 0, 0, 0), 0, 0, 0)
