"""A recorded trace checked by a disassembler, independently of the plugin."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from pathlib import Path

import capstone
import numpy as np
import pandas
from capstone import x86

from lbrcore import BranchClass as C
from pylbr import trace

KERNEL = 1 << 63
JUMPS = set(range(x86.X86_INS_JAE, x86.X86_INS_JS + 1)) - {x86.X86_INS_JMP, x86.X86_INS_LJMP}
LOOPS = {x86.X86_INS_LOOP, x86.X86_INS_LOOPE, x86.X86_INS_LOOPNE}
SYSTEM = {x86.X86_INS_SYSCALL: C.SYSCALL, x86.X86_INS_INT3: C.SOFT_INT, x86.X86_INS_INT: C.SOFT_INT}


def branch_of(insn):
    """(class, direct target or None) of an instruction; None if it is no branch."""
    direct = insn.operands[0].imm if insn.operands and insn.operands[0].type == 2 else None
    if insn.id in JUMPS or insn.id in LOOPS:
        return C.COND, direct
    if insn.id == x86.X86_INS_JMP:
        return (C.NEAR_IND_JMP, None) if direct is None else (C.NEAR_REL_JMP, direct)
    if insn.id == x86.X86_INS_CALL:
        return (C.NEAR_IND_CALL, None) if direct is None else (C.NEAR_REL_CALL, direct)
    if insn.id == x86.X86_INS_RET:
        return C.NEAR_RET, None
    if insn.id in SYSTEM:
        return SYSTEM[insn.id], None
    return None


class Code:
    """Instructions of one process's modules."""

    def __init__(self, modules):
        self._modules = sorted(modules, key=lambda m: m.start)
        self._starts = [m.start for m in self._modules]
        self._files = {}
        self._known = {}
        self._engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._engine.detail = True

    def covers(self, address):
        i = bisect_right(self._starts, address) - 1
        return i >= 0 and address < self._starts[i] + self._modules[i].size and (
            self._modules[i].path.startswith("/") and self._modules[i].path[1] != "/")

    def at(self, address):
        """(length, branch) of the instruction there."""
        if address not in self._known:
            i = bisect_right(self._starts, address) - 1
            module = self._modules[i]
            if module.path not in self._files:
                self._files[module.path] = Path(module.path).read_bytes()
            offset = address - module.start + module.file_offset
            code = self._files[module.path][offset:offset + 15]
            insn = next(self._engine.disasm(code, address, 1), None)
            # Old capstone does not know every instruction; such a one is no branch.
            self._known[address] = (insn.size, branch_of(insn)) if insn else (None, None)
        return self._known[address]


class Report:
    """Counts of a check; every list of complaints must stay empty."""

    def __init__(self):
        self.edges, self.ranges, self.skipped = 0, 0, 0
        self.wrong = []


def by_task(path):
    """{tid: branches} and metadata of a full trace."""
    parts, tasks = {}, Counter()
    names = ("from", "to", "class", "instructions")
    with trace.open(path) as source:
        metadata = source.metadata
        for chunk in source.chunks():
            columns = {name: np.asarray(chunk.column(name)) for name in names}
            task = np.asarray(chunk.column("task"))
            for tid in np.unique(task):
                mine = {name: values[task == tid].copy() for name, values in columns.items()}
                parts.setdefault(int(tid), []).append(mine)
                tasks[int(tid)] += len(mine["from"])
    joined = {
        tid: {name: np.concatenate([part[name] for part in found]) for name in names}
        for tid, found in parts.items()
    }
    return joined, metadata


def distinct(*columns):
    """The different rows of some columns, as lists of int."""
    frame = pandas.DataFrame(dict(enumerate(columns)))
    return frame.drop_duplicates().to_numpy(dtype="u8").tolist()


def check_edges(code, branches, report):
    """Each distinct edge is what the instruction at FROM can do."""
    for source, target, cls in distinct(branches["from"], branches["to"], branches["class"]):
        if source >= KERNEL or cls in (C.INTERRUPT, C.EXCEPTION):
            continue
        if not code.covers(source):
            report.skipped += 1
            continue
        length, branch = code.at(source)
        report.edges += 1
        if branch is None:
            report.wrong.append(f"{source:#x}: no branch, recorded as {C(cls).name}")
            continue
        kind, direct = branch
        expected = {C.NOT_TAKEN: C.COND, C.ZERO_CALL: C.NEAR_REL_CALL}.get(cls, cls)
        goal = source + length if cls in (C.NOT_TAKEN, C.ZERO_CALL) else direct
        if kind != expected or (goal is not None and target != goal):
            report.wrong.append(f"{source:#x} -> {target:#x} {C(cls).name}, really {kind.name}")


def check_ranges(code, branches, report):
    """From each TO to the next FROM lie `instructions` instructions, none of them a branch."""
    # A trace with branches that fell through names every branch instruction that ran.
    for start, end, count, cls in distinct(branches["to"][:-1], branches["from"][1:],
                                           branches["instructions"][1:], branches["class"][1:]):
        if start >= KERNEL or end >= KERNEL or not code.covers(start):
            continue
        at, n, length = start, 0, 0
        report.ranges += 1
        while at < end and n <= count:
            length, branch = code.at(at)
            if length is None or branch is not None:
                break
            at, n = at + length, n + 1
        if length is None:
            report.skipped += 1
            continue
        # A branch has retired with the range; an interrupted instruction has not.
        retired = n + (cls not in (C.INTERRUPT, C.EXCEPTION))
        if at != end or retired != count:
            report.wrong.append(f"{start:#x}..{end:#x}: {count} instructions, stopped at {at:#x}")


def check(path):
    """Check a full trace, thread by thread."""
    report = Report()
    tasks, metadata = by_task(path)
    pid_of = {task.tid: task.pid for task in metadata.tasks}
    for tid, branches in tasks.items():
        pid = pid_of.get(tid, tid)
        code = Code([m for m in metadata.modules if m.pid == pid])
        check_edges(code, branches, report)
        check_ranges(code, branches, report)
    return report
