"""Call stacks: of samples, or of every branch of a trace.

Of samples, their call chains, or the LBRs in call-stack mode: where the sample was taken and where
each CALL left from.  Of a trace, the stacks of its CALLs and RETs, weighted by the taken branches
in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from lbrcore import BranchClass
from pylbr.errors import TraceError
from pylbr.perf.abi import BranchSample
from pylbr.perf.stacks import Samples
from pylbr.profile.history import Paths
from pylbr.profile.symbols import Symbols
from pylbr.profile.whole import spaces_of
from pylbr.trace.trace import Trace

__all__ = ["DEEPEST", "Chains", "Stack", "stacks_of_trace"]

#: From here on a word of a call chain is no address but PERF_CONTEXT_USER and its like.
_CONTEXT: Final = (1 << 64) - 4095
_PUSH: Final = (BranchClass.NEAR_IND_CALL, BranchClass.NEAR_REL_CALL, BranchClass.INTERRUPT,
                BranchClass.EXCEPTION, BranchClass.SOFT_INT, BranchClass.SYSCALL)
_POP: Final = (BranchClass.NEAR_RET, BranchClass.IRET, BranchClass.SYSRET)
_NOT_TAKEN: Final = (BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL)
#: No instruction of x86 is longer: a RET leads at most so far after its CALL.
_LONGEST: Final = 15

#: Frames of a stack of a trace: what is called by the last of them counts in it.
DEEPEST: Final = 500

#: Addresses of one stack, the outermost first, after the address space.
Stack = tuple[int, ...]


class Chains(Paths):
    """Counts call stacks where `collect` counts the branch history."""

    def __init__(self, events: tuple[Any, ...]) -> None:
        super().__init__(1)
        self._modes = [bool(event.branch_sample_type & BranchSample.CALL_STACK)
                       for event in events]
        self.stacks: Counter[Stack] = Counter()
        self.without = 0

    def clear(self) -> None:
        self.stacks.clear()
        self.without = 0

    def add(self, samples: Samples) -> None:
        for i in range(len(samples)):
            stack = self._chain(samples, i)
            if stack:
                self.stacks[int(samples.pid[i]), *stack] += 1
            else:
                self.without += 1

    def _chain(self, samples: Samples, i: int) -> list[int]:
        if samples.chain is not None and samples.chain_offsets is not None:
            words = samples.chain[samples.chain_offsets[i]:samples.chain_offsets[i + 1]].tolist()
            words = [word for word in words if word < _CONTEXT]
            if words:
                # A caller's word is where it continues, which may be another function's start.
                return [word - 1 for word in words[:0:-1]] + words[:1]
        event = int(samples.event[i])
        if event < len(self._modes) and self._modes[event]:
            entries = samples.entries[samples.offsets[i]:samples.offsets[i + 1]]
            return [a for a in entries["from"][::-1].tolist() if a] + [int(samples.ip[i])]
        return []


class _Walk:
    """The stack of one task of a trace, and the branches that each stack has had.

    A stack is a number; those of `parents` lead to the outermost.
    """

    def __init__(self, begin: int) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self.nodes: list[tuple[int, int]] = []
        self.counts: list[int] = []
        self._depths: list[int] = []
        self._frames: list[tuple[int, int]] = []  # call site, stack before it
        self._now = self._node(-1, begin)

    def _node(self, parent: int, function: int) -> int:
        key = parent, function
        if key not in self._numbers:
            self._numbers[key] = len(self.nodes)
            self.nodes.append(key)
            self.counts.append(0)
            self._depths.append(self._depths[parent] + 1 if parent >= 0 else 1)
        return self._numbers[key]

    def spend(self, branches: int) -> None:
        """The present stack has had so many branches."""
        self.counts[self._now] += branches

    def call(self, site: int, target: int) -> None:
        """A CALL, or what else comes back."""
        self._frames.append((site, self._now))
        if self._depths[self._now] < DEEPEST:
            self._now = self._node(self._now, target)

    def back(self, target: int) -> None:
        """A return: to the newest CALL that it can be of, or out of all that was seen."""
        for depth in range(len(self._frames) - 1, -1, -1):
            site, before = self._frames[depth]
            if 0 <= target - site <= _LONGEST:
                del self._frames[depth:]
                self._now = before
                return
        self._frames.clear()
        self._now = self._node(-1, target)

    def stacks(self, space: int) -> Counter[Stack]:
        """The stacks with branches."""
        found: Counter[Stack] = Counter()
        for number, count in enumerate(self.counts):
            if count:
                frames, at = [], number
                while at >= 0:
                    at, function = self.nodes[at]
                    frames.append(function)
                found[space, *frames[::-1]] += count
        return found


def stacks_of_trace(
    trace: Trace, update: Callable[[int], object]
) -> tuple[dict[int, Counter[Stack]], Symbols, int]:
    """The call stacks of each task of a trace, names for them, and how many branches it has.

    Raises
    ------
    TraceError
        It has no classes, without which no CALL is known, or no taken branch.
    """
    if "class" not in trace.columns:
        raise TraceError(trace.path, "has no classes of branches; name the program with --module")
    pids = {task.tid: task.pid for task in trace.metadata.tasks}
    walks: dict[int, _Walk] = {}
    total = 0
    for chunk in trace.chunks(("from", "to", "class", "task")):
        classes, task = chunk.column("class"), chunk.task
        tasks = np.zeros(len(chunk), "u4") if task is None else task
        taken = ~np.isin(classes, _NOT_TAKEN)
        for one in np.unique(tasks[taken]).tolist():
            rows = np.flatnonzero(taken & (tasks == one))
            if one not in walks:
                walks[one] = _Walk(int(chunk.column("from")[rows[0]]))
            _follow(walks[one], chunk.column("from")[rows], chunk.column("to")[rows],
                    classes[rows])
        total += len(chunk)
        update(len(chunk))
    if not walks:
        raise TraceError(trace.path, "holds no taken branches: nothing to convert")
    spaces = spaces_of(trace, sorted({pids.get(task, task) for task in walks}))
    return ({task: walk.stacks(pids.get(task, task)) for task, walk in sorted(walks.items())},
            Symbols(spaces), total)


def _follow(walk: _Walk, sources: Any, targets: Any, classes: Any) -> None:
    """Take the taken branches of one task."""
    calls = np.isin(classes, _PUSH)
    moves = np.flatnonzero(calls | np.isin(classes, _POP))
    before = 0
    for at, call, site, target in zip(
            moves.tolist(), calls[moves].tolist(), sources[moves].tolist(),
            targets[moves].tolist(), strict=True):
        walk.spend(at + 1 - before)  # the branch itself leaves from the present stack
        before = at + 1
        if call:
            walk.call(site, target)
        else:
            walk.back(target)
    walk.spend(len(classes) - before)
