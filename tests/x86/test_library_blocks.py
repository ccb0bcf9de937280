"""Blocks through liblbrcore: the branches, counts and records of the plain twin."""

import ctypes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbrcore import BranchClass
from pylbr.cpu import Processor
from pylbr.cpu.saved.codec import encode
from pylbr.x86.blocks_reference import ReferenceBlocks
from pylbr.x86.facts import decode_block
from tests import manual
from tests.core.library import library
from tests.cpu.library import CODES, Cpu, Failed

BASE = 0x401000
BODY = [bytes.fromhex(code) for code in ("90", "4889c8", "0f1f440000", "f3a4", "488b442408")]
#: What a block ends in; a relative operand is filled in.
ENDS = [bytes.fromhex(code) for code in (
    "75", "eb", "e2", "0f84", "e9", "e8", "e800000000", "c3", "c20800", "ffe0", "ffd0",
    "ff15aabbccdd", "0f05", "cc", "cd80", "48cf", "f30f01ca", "f20f01ca", "0f07",
    "f3a4", "f2ae", "90")]


class Block(ctypes.Structure):
    """struct lbr_block."""
    _fields_ = [(name, ctypes.c_uint64) for name in ("start", "end", "last", "target")]
    _fields_ += [("instructions", ctypes.c_uint32), ("cls", ctypes.c_uint8),
                 ("direct", ctypes.c_uint8), ("repeats", ctypes.c_uint8),
                 ("condition", ctypes.c_uint8)]


def programs():
    return st.lists(st.tuples(st.lists(st.sampled_from(BODY), max_size=4), st.sampled_from(ENDS),
                              st.integers(0, 7), st.integers(0, 3)), min_size=2, max_size=8)


def runs():
    """Number of a block, its privilege level if it may change, an event in it or none, and RFLAGS
    and RCX before it, or none that the host can read."""
    event = st.tuples(st.sampled_from([BranchClass.EXCEPTION, BranchClass.INTERRUPT]),
                      st.integers(0, 4))
    registers = st.tuples(st.sampled_from([0, 0x1, 0x4, 0x40, 0x80, 0x800, 0x8C5]),
                          st.sampled_from([0, 1, 1 << 32]))
    return st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0, 3]),
                              st.one_of(st.none(), st.none(), st.none(), event),
                              st.one_of(st.none(), registers)),
                    min_size=1, max_size=20)


def laid_out(program):
    """(address, code) of each block, relative branches to the start of another one."""
    sizes = {1: 2, 2: 6}
    places, at = [], BASE
    for body, end, _, gap in program:
        size = sum(map(len, body)) + (sizes.get(len(end), len(end)) if end in ENDS[:4]
                                      else 5 if end in ENDS[4:6] else len(end))
        places.append((at, size))
        at += size + gap
    blocks = []
    for (body, end, to, _), (start, size) in zip(program, places, strict=True):
        width = 1 if end in ENDS[:3] else 4 if end in ENDS[3:6] else 0
        distance = places[to % len(places)][0] - (start + size)
        if width and not -(1 << 8 * width - 1) <= distance < 1 << 8 * width - 1:
            distance = 0x10
        code = b"".join(body) + end + (
            distance.to_bytes(width, "little", signed=True) if width else b"")
        assert len(code) == size
        blocks.append((start, code))
    return blocks


def described(start, code):
    """The block as the library decodes it; the last instruction alone gives the same."""
    block, other = Block(), Block()
    assert library().lbr_block_describe(
        ctypes.byref(block), ctypes.c_uint64(start), code, ctypes.c_size_t(len(code))) == 0
    last = code[block.last - start:]
    assert library().lbr_block_ends(
        ctypes.byref(other), ctypes.c_uint64(start), ctypes.c_uint32(block.instructions),
        ctypes.c_uint64(block.last), last, ctypes.c_size_t(len(last))) == 0
    assert bytes(block) == bytes(other)
    return block


@settings(max_examples=150)
@given(programs(), runs())
# JNE to the next instruction: flags not known, not taken, taken.
@example([([], b"u", 1, 0), ([], b"u", 0, 0)], [(0, 3, None, None), (1, 3, None, None)])
@example([([], b"u", 1, 0), ([], b"u", 0, 0)], [(0, 3, None, None), (1, 3, None, (0x40, 0))])
@example([([], b"u", 1, 0), ([], b"u", 0, 0)], [(0, 3, None, None), (1, 3, None, (0, 0))])
def test_entered_blocks_make_the_branches_of_the_twin(program, run):
    blocks = laid_out(program)
    facts = {start: decode_block(code, start).facts for start, code in blocks}
    codes, shapes = dict(blocks), {start: described(start, code) for start, code in blocks}
    for start, block in shapes.items():
        count, last, cls, target, _, _ = facts[start]
        assert (block.instructions, block.last) == (count, last)
        assert block.cls == (0xFF if cls is None else cls)
        assert block.target == (target or 0) and block.end == start + len(codes[start])
    ours, theirs = Cpu("sapphire-rapids"), Processor("sapphire-rapids")
    for cpu in (ours, theirs):
        for index, value in ((manual.IA32_LBR_CTL, manual.RECORD_ALL),
                             (manual.IA32_PERF_GLOBAL_CTRL, 0x300000003),
                             (manual.IA32_FIXED_CTR_CTRL, 0x33),
                             (manual.IA32_PERFEVTSEL0, 0x4300C4),
                             (manual.IA32_PERFEVTSEL0 + 1, 0x430CC0)):
            cpu.wrmsr(index, value)
    cpl = 3

    def record(source, to, cls, cpl_from, cpl_to, since):
        theirs.branch(cls, source, to, cpl_from=cpl_from, cpl_to=cpl_to, instructions=since,
                      cycles=since)

    twin = ReferenceBlocks(
        record, lambda at, size: decode_block(
            next(code[at - start:at - start + size] for start, code in blocks
                 if start <= at < start + len(code)), at).facts, lambda: (cpl, *registers))
    twin.cpl = cpl
    ours.event("enter", ctypes.byref(Block(start=1, end=2, last=1, cls=0xFF)), cpl)
    ours.event("settle", ctypes.c_uint64(0))
    changes, registers = False, (None, 0)
    for number, level, event, left in run:
        registers = left or (None, 0)
        if left:
            ours.event("flags", ctypes.c_uint64(left[0]), ctypes.c_uint64(left[1]))
        start, code = blocks[number % len(blocks)]
        if changes:
            cpl = level
        twin.enter(start, len(code))
        ours.event("enter", ctypes.byref(shapes[start]), cpl)
        cls = facts[start][2]
        changes = cls is not None and cls > BranchClass.ZERO_CALL
        if event:
            event, done = event
            done %= facts[start][0]
            at = start
            while done and decode_block(code[:at - start], start).facts[0] != done \
                    if at > start else done:
                at += 1
            twin.interrupted(at, event)
            ours.event("interrupt", int(event), ctypes.c_uint64(at), ctypes.c_uint32(done))
            changes = True
    assert ours.save() == encode(theirs.state())


@pytest.mark.parametrize(
    "code", [b"", b"\x0f", b"\x90\xe8\x00", b"\x06", b"\x90" * ((1 << 20) + 1)])
def test_what_is_no_code_is_refused(code):
    block = Block(start=7)
    result = library().lbr_block_describe(ctypes.byref(block), ctypes.c_uint64(BASE), code,
                                          ctypes.c_size_t(len(code)))
    assert result == CODES["LBR_EINVAL"] and block.start == 7


def test_arguments_out_of_range_are_refused():
    cpu, block = Cpu("skylake"), described(BASE, b"\x90\xc3")
    before = cpu.image()
    for name, *arguments in (("enter", ctypes.byref(block), 4), ("enter", ctypes.byref(block), -1),
                             ("interrupt", 5, ctypes.c_uint64(1), ctypes.c_uint32(1)),
                             ("interrupt", 16, ctypes.c_uint64(1), ctypes.c_uint32(1))):
        with pytest.raises(Failed, match="LBR_EINVAL"):
            cpu.event(name, *arguments)
        assert cpu.image() == before
