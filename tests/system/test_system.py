"""A Linux booted under qemu-system, recorded: where its code lies, and that branches are real."""

from __future__ import annotations

import re
import shutil
import subprocess

import capstone
import pytest

from tests.system.conftest import need, record

pytestmark = pytest.mark.peer

UPPER = 1 << 63
BRANCHES = {capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET, capstone.CS_GRP_IRET,
            capstone.CS_GRP_INT}
NAMED = ("syscall", "sysret", "sysretq", "iretq", "iret")
UNCONDITIONAL = ("jmp", "ret", "iretq", "sysret", "sysretq")


class Code:
    """A piece of code, which capstone judges."""

    def __init__(self, start, data):
        self._start, self._data, self._known = start, data, {}
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True

    def holds(self, *addresses):
        return all(0 <= a - self._start < len(self._data) - 16 for a in addresses)

    def bytes(self, first, last):
        return self._data[first - self._start:last - self._start]

    def _at(self, address):
        """(mnemonic, size, is a branch, direct target or None), or None."""
        if address not in self._known:
            at = address - self._start
            found = next(self._decoder.disasm(self._data[at:at + 16], address), None)
            self._known[address] = None if found is None else (
                found.mnemonic, found.size,
                bool(set(found.groups) & BRANCHES) or found.mnemonic in NAMED,
                found.operands[0].imm & (1 << 64) - 1 if found.mnemonic != "ret" and found.operands
                and found.operands[0].type == capstone.x86.X86_OP_IMM else None)
        return self._known[address]

    def is_branch(self, source, target):
        found = self._at(source)
        return found is not None and found[2] and found[3] in (None, target)

    def following(self, address):
        """The address after the instruction there; None if that is not what follows."""
        found = self._at(address)
        return None if found is None or found[0] in UNCONDITIONAL else address + found[1]


def patched(codes, first, last):
    """Whether the codes differ there."""
    return len({code.bytes(first - 8, last + 8) for code in codes}) > 1


def straight_way(codes, first, last):
    """Whether instructions, each of one of the codes, lead from one address to the other."""
    reached = {first}
    while reached and min(reached) < last:
        at = min(reached)
        reached.remove(at)
        reached |= {code.following(at) for code in codes} - {None}
    return last in reached


def test_the_kernel_and_its_modules_are_mapped_where_they_run(recorded):
    kernel, *modules = [m for m in recorded.maps if m.pid == -1]
    assert kernel.path == "[kernel.kallsyms]_text" and kernel.file_offset == kernel.start
    assert kernel.start == recorded.kernel.start + recorded.slide
    loaded = dict(re.findall(r"^(\w+) \d+ .* 0x([0-9a-f]+)\r?$", recorded.printed, re.M))
    assert {m.path.strip("[]"): f"{m.start:x}" for m in modules} == loaded and len(loaded) == 4


def test_kernel_and_programs_are_sampled(recorded):
    kernel = sum(ip >= UPPER for ip in recorded.ips)
    assert kernel > 1000 and len(recorded.ips) - kernel > 300
    full = sum(len(stack) == 32 for stack in recorded.stacks)
    assert full > 0.95 * len(recorded.stacks)


def test_no_branch_leads_into_an_interrupt_gate(recorded):
    """An interrupt's way in would look like a branch of whatever was interrupted."""
    symbols = {recorded.kernel.symbols[name] + recorded.slide for name in recorded.kernel.symbols
               if name.startswith(("asm_exc_", "asm_sysvec_", "early_idt_handler_array"))}
    assert symbols & recorded.gates
    assert not [edge for edge in recorded.edges if edge[1] in symbols | recorded.gates]
    assert "an interrupt, an exception" in recorded.said


def test_programs_enter_the_kernel_by_system_calls_alone(recorded):
    into = {edge for edge in recorded.edges if edge[0] < UPPER <= edge[1]}
    assert into and {to for _, to in into} == {recorded.symbol("entry_SYSCALL_64")}


def test_every_branch_is_one_in_the_code_that_ran(recorded):
    """Against the kernel's code in the file and, after it has patched itself, in memory: each
    instruction is that of one of them."""
    start = recorded.kernel.start + recorded.slide
    codes = [Code(start, data) for data in (recorded.code, recorded.kernel.code)]
    straight = {(older[1], newer[0]) for stack in recorded.stacks
                for newer, older in zip(stack, stack[1:], strict=False)}
    edges = [edge for edge in recorded.edges if codes[0].holds(edge[0])]
    ranges = [span for span in straight if codes[0].holds(*span)]
    assert len(edges) > 2000 and len(ranges) > 2000
    wrong = [tuple(map(hex, edge)) for edge in edges if not any(c.is_branch(*edge) for c in codes)]
    assert not wrong
    wrong = [tuple(map(hex, span)) for span in ranges if not straight_way(codes, *span)
             and not patched(codes, *span)]
    assert not wrong
    # What was patched more than once, as calls of pv_ops are, had a third form in between.
    assert sum(not straight_way(codes, *span) for span in ranges) < 10


def test_perf_lists_the_kernel_and_its_modules(guest, recorded, tmp_path):
    need(shutil.which("perf"), "no perf")
    found = record(guest, tmp_path, "-c", "100003", "-j", "any,k", append="nokaslr")
    assert found.slide == 0
    assert all(edge[1] >= UPPER for edge in found.edges) and min(found.ips) >= UPPER
    listed = subprocess.run(["perf", "buildid-list", "-i", tmp_path / "system.data"], check=True,
                            capture_output=True, text=True).stdout
    assert listed.split() == [found.kernel.build_id().hex(), "[kernel.kallsyms]"]
    said = subprocess.run(["perf", "script", "-F", "event,ip,brstack", "-i",
                           tmp_path / "system.data"], check=True, capture_output=True, text=True)
    assert said.stdout.count("branches:k") == len(found.ips)
