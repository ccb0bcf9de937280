"""What recording costs an emulator.

One loop, 5 instructions, 3 blocks and 1.5 taken branches a round, in one engine under four
kinds of hook; then single branches through the table and inline.  The ratios go into
``extra_info``, each out of one run.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from unicorn import UC_HOOK_BLOCK
from unicorn import x86_const as reg

from pylbr.bench.rows_guest import CODE, LOOP, loop_engine
from pylbr.cpu import Processor
from pylbr.embed.engine import Engine
from pylbr.embed.unicorn import attach
from pylbr.x86.blocks_reference import ReferenceBlocks
from pylbr.x86.compiled_facts import facts_of
from pylbr.x86.facts import decode_block
from tests.core.library import prefix
from tests.manual import IA32_LBR_CTL, RECORD_ALL

QUICK = os.environ.get("PYLBR_BENCH") == "quick"
ROUNDS = 2_000_000 if QUICK else 20_000_000
PYTHON_ROUNDS = 20_000 if QUICK else 100_000
TAKEN = 1.5
#: Where guest_work.c begins, and its stack.
WORK, STACK = 0x8000, 0x80000
CTL = RECORD_ALL

EMPTY = """
#include <stdint.h>
void empty(void *uc, uint64_t address, uint32_t size, void *last) { (void)uc; (void)address; }
"""


def seconds(uc, rounds):
    best = None
    for _ in range(5):
        uc.reg_write(reg.UC_X86_REG_RCX, rounds)
        start = time.thread_time()
        uc.emu_start(CODE, CODE + len(LOOP))
        spent = time.thread_time() - start
        best = spent if best is None else min(best, spent)
    return best


@pytest.fixture(scope="module")
def empty_hook(tmp_path_factory):
    directory = tmp_path_factory.mktemp("empty")
    (directory / "empty.c").write_text(EMPTY)
    library = directory / "empty.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, directory / "empty.c"],
                   check=True, timeout=60)
    return ctypes.CDLL(str(library))


def test_unicorn(benchmark, empty_hook):
    """No hook, an empty C hook, ours, and the Python twin of ours."""
    bare = seconds(loop_engine(), ROUNDS) / ROUNDS

    uc = loop_engine()
    low = Engine(uc)
    low.hook(UC_HOOK_BLOCK, ctypes.cast(empty_hook.empty, ctypes.c_void_p).value, 0)
    empty = seconds(uc, ROUNDS) / ROUNDS

    uc = loop_engine()
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, CTL)
    attach(uc, processor)
    compiled = benchmark.pedantic(seconds, (uc, ROUNDS), rounds=1) / ROUNDS
    assert processor.records()["from"].all()

    uc = loop_engine()
    twin = Processor("sapphire-rapids")
    twin.wrmsr(IA32_LBR_CTL, CTL)
    blocks = ReferenceBlocks(
        lambda source, to, cls, cpl_from, cpl_to, count: twin.lbr.record_one(
            source, to, cls, cycles=count, instructions=count, cpl_from=cpl_from,
            cpl_to=cpl_to),
        lambda address, size: decode_block(bytes(uc.mem_read(address, size)), address).facts,
        lambda: (8, uc.reg_read(reg.UC_X86_REG_EFLAGS), uc.reg_read(reg.UC_X86_REG_RCX)),
        log_not_taken=False,
    )
    uc.hook_add(UC_HOOK_BLOCK, lambda uc, address, size, data: blocks.enter(address, size))
    python = seconds(uc, PYTHON_ROUNDS) / PYTHON_ROUNDS

    info = benchmark.extra_info
    info["taken branches/s, compiled"] = TAKEN / compiled
    info["taken branches/s, Python"] = TAKEN / python
    info["compiled over Python (target: at least 60)"] = python / compiled
    info["time over no hook (target: at most 2.5)"] = compiled / bare
    info["time over an empty C hook"] = compiled / empty
    info["ns a recorded branch above an empty C hook (target: at most 10)"] = (
        (compiled - empty) / TAKEN * 1e9)
    print({name: round(value, 3) for name, value in info.items()})


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Machine code of guest_work.c; EDI is the number of its rounds."""
    directory = tmp_path_factory.mktemp("work")
    for command in (
            ["gcc", "-O2", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-mno-sse",
             "-mcmodel=large", "-nostdlib", "-static", f"-Wl,-Ttext={CODE:#x},-e,start",
             "-Wl,--section-start=.start=0x8000,--build-id=none,--no-warn-rwx-segments,-N",
             "-o", "work", Path(__file__).parent / "guest_work.c"],
            ["objcopy", "-O", "binary", "work", "work.bin"]):
        subprocess.run(command, cwd=directory, check=True, timeout=60)
    return (directory / "work.bin").read_bytes()


def working_engine(code):
    uc = loop_engine()
    uc.mem_write(WORK, code)
    return uc


def work_seconds(uc, rounds):
    best = None
    for _ in range(3):
        uc.reg_write(reg.UC_X86_REG_RSP, STACK)
        uc.reg_write(reg.UC_X86_REG_RDI, rounds)
        start = time.thread_time()
        uc.emu_start(WORK, 0)
        spent = time.thread_time() - start
        best = spent if best is None else min(best, spent)
    return best, uc.reg_read(reg.UC_X86_REG_EAX)


def test_compiled_code(benchmark, work):
    """All branches of a compiled program recorded, beside the engine alone."""
    rounds = 5 if QUICK else 40
    bare, expected = work_seconds(working_engine(work), rounds)
    uc = working_engine(work)
    processor = Processor("sapphire-rapids")
    processor.wrmsr(IA32_LBR_CTL, CTL)
    link = attach(uc, processor)
    spent, result = benchmark.pedantic(work_seconds, (uc, rounds), rounds=1)
    link.settle()
    assert result == expected and processor.records()["from"].all()
    info = benchmark.extra_info
    info["instructions/s, all branches recorded"] = link.recorder.instructions / 3 / spent
    info["instructions per taken branch"] = link.recorder.instructions / link.recorder.taken
    info["time over no hook (goal: at most 2)"] = spent / bare
    print({name: round(value, 3) for name, value in info.items()})


def test_classification(benchmark, work):
    """What the recorder has to know of a block, compiled, beside the Python twin."""
    blocks: dict[tuple[int, int], bytes] = {}
    uc = working_engine(work)
    uc.hook_add(UC_HOOK_BLOCK, lambda uc, address, size, data: blocks.setdefault(
        (address, size), bytes(uc.mem_read(address, size))))
    work_seconds(uc, 1)
    known = [(code, address) for (address, _), code in blocks.items()]

    def seconds_of(describe, repeat):
        start = time.thread_time()
        for _ in range(repeat):
            for code, address in known:
                describe(code, address)
        return (time.thread_time() - start) / repeat / len(known)

    compiled = benchmark.pedantic(seconds_of, (facts_of, 200), rounds=1)
    info = benchmark.extra_info
    info["blocks"] = len(known)
    info["us a block, compiled, with the call (goal: at most 4)"] = compiled * 1e6
    info["us a block, Python"] = seconds_of(decode_block, 10) * 1e6
    print({name: round(value, 3) for name, value in info.items()})


def test_library_and_inline(benchmark, tmp_path):
    """One branch at a time: called and inlined in C, inlined into Cython."""
    root = Path(__file__).resolve().parent.parent
    program = tmp_path / "emulator"
    subprocess.run(
        ["gcc", "-O2", root / "examples/c/emulator.c", "-o", program,
         f"-I{prefix() / 'include'}", prefix() / "lib/liblbrcore.a"], check=True, timeout=120)
    for name in ("emulator.pyx", "setup.py"):
        shutil.copy(root / "examples/cython" / name, tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(root), *(path for path in sys.path if path.endswith("site-packages"))])}
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tmp_path,
                   env=environment, check=True, timeout=300)
    count = ROUNDS * 5

    def linked():
        """Nanoseconds per branch by a call of liblbrcore, and inlined from its header."""
        out = subprocess.run([program, "--time", str(count)], check=True, capture_output=True,
                             text=True, timeout=300).stdout
        return [float(line.split()[1]) for line in out.splitlines()]

    walk = f"""
import time, emulator, lbrcore
facility = lbrcore.LbrState(lbrcore.LbrConfig())
facility.ctl = {CTL:#x}
best = [9e9, 9e9]
for _ in range(5):
    for i, call in enumerate((lambda: emulator.walk(facility, {count}),
                              lambda: emulator.walk_unrecorded({count}))):
        start = time.thread_time()
        call()
        best[i] = min(best[i], time.thread_time() - start)
print((best[0] - best[1]) / {count} * 1e9)
"""
    inline = float(subprocess.run(
        [sys.executable, "-c", walk], cwd=tmp_path, env=environment, check=True,
        capture_output=True, text=True, timeout=300).stdout)
    info = benchmark.extra_info
    calls, inlined = zip(*(linked() for _ in range(3)), strict=True)
    info["ns per branch by a call of liblbrcore (target: at most 2)"] = min(calls)
    info["ns per branch inlined from C (target: at most 1)"] = min(inlined)
    info["ns per branch inlined from Cython, above the walk (target: under 1)"] = inline
    benchmark.pedantic(linked, rounds=1)
    print(dict(info))
