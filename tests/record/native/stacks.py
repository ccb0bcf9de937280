"""Recorded stacks, each against what a disassembler says of the program's files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace

from pylbr import trace
from pylbr.perf.stacks import Comm, Fork, Lost, Mmap, Samples
from tests.record.oracle import Code

#: Longest straight range that is followed, instructions.
FAR = 4000


@dataclass
class Found:
    """What a file of stacks holds: stacks newest first as lists of (from, to), by process and
    program."""

    stacks: dict = field(default_factory=lambda: defaultdict(list))
    weights: list = field(default_factory=list)
    tids: set = field(default_factory=set)
    names: set = field(default_factory=set)
    modules: dict = field(default_factory=lambda: defaultdict(list))
    lost: int = 0

    @property
    def count(self):
        return sum(map(len, self.stacks.values()))

    def edges(self):
        return [edge for found in self.stacks.values() for stack in found for edge in stack]


def read(path):
    """All of a perf.data file."""
    found = Found()
    images = Counter()
    with trace.open_stacks(path) as source:
        for record in source:
            if isinstance(record, Samples):
                for i in range(len(record)):
                    stack = record.stack(i)
                    pairs = list(zip(stack["from"].tolist(), stack["to"].tolist(), strict=True))
                    pid = int(record.pid[i])
                    found.stacks[pid, images[pid]].append(pairs)
                found.weights += record.period.tolist()
                found.tids |= set(record.tid.tolist())
            elif isinstance(record, Mmap):
                found.modules[record.pid, images[record.pid]].append(SimpleNamespace(
                    path=record.path, start=record.start, size=record.length,
                    file_offset=record.file_offset))
            elif isinstance(record, Fork) and record.pid != record.ppid:
                images[record.pid] += 1
                parent = record.ppid, images[record.ppid]
                found.modules[record.pid, images[record.pid]] += found.modules[parent]
            elif isinstance(record, Comm):
                found.names.add(record.name)
                if record.exec_:
                    images[record.pid] += 1
            elif isinstance(record, Lost):
                found.lost += record.count
    return found


def complaints(found):
    """(checked edges, checked ranges, what is wrong): every FROM a branch, every direct TO its
    target, every range between two branches straight."""
    edges, ranges, wrong = 0, 0, []
    for task, stacks in found.stacks.items():
        code = Code(found.modules[task])
        for source, target in {edge for stack in stacks for edge in stack}:
            if not code.covers(source):
                continue
            edges += 1
            _, branch = code.at(source)
            if branch is None or branch[1] not in (None, target):
                wrong.append(f"{source:#x} -> {target:#x}: {branch}")
        pairs = {(old[1], new[0]) for stack in stacks
                 for new, old in zip(stack, stack[1:], strict=False)}
        for start, end in pairs:
            if code.covers(start) and code.covers(end):
                ranges += 1
                if not _straight(code, start, end):
                    wrong.append(f"{start:#x} to {end:#x}: not straight")
    return edges, ranges, wrong


def _straight(code, start, end):
    """Whether execution can run from `start` to the branch at `end` without taking another."""
    at = start
    for _ in range(FAR):
        if at >= end:
            return at == end
        length, branch = code.at(at)
        if length is None:
            return True  # not known to the disassembler
        if branch is not None and branch[0].name not in ("COND", "SYSCALL"):
            return branch[0].name == "NEAR_REL_CALL" and branch[1] == at + length
        at += length
    return True
