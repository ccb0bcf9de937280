"""A trace of many tasks and CPUs, taken apart into what each facility sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stream", "Streams"]


class Stream(NamedTuple):
    """Rows of a chunk that belong to one facility.

    Attributes
    ----------
    key : int
        Task or CPU.
    rows : ndarray of i8 or None
        Rows of the chunk, ascending; None: all of them.
    switches : ndarray of i8
        Indices into these rows before which the task was switched in.
    """

    key: int
    rows: NDArray[np.int64] | None
    switches: NDArray[np.int64]


@dataclass
class Streams:
    """Splits chunk after chunk of one trace.

    A task is switched in where the branch before it on its CPU was another task's, or its own
    last branch was on another CPU.  A trace that does not name CPUs shows no switches: each
    task is taken to have a CPU of its own.

    Parameters
    ----------
    scope : {"task", "cpu"}
        Whose the facilities are.  By CPU needs that column; a trace without has one CPU.
    last_task, last_cpu : dict of int to int
        The last task on each CPU, and the last CPU of each task.
    """

    scope: Literal["task", "cpu"] = "task"
    last_task: dict[int, int] = field(default_factory=dict)  # by CPU
    last_cpu: dict[int, int] = field(default_factory=dict)  # by task

    def split(
        self, count: int, task: NDArray[np.uint32] | None, cpu: NDArray[np.uint32] | None
    ) -> list[Stream]:
        """Streams of the next `count` rows, in the order of their keys."""
        key = task if self.scope == "task" else cpu
        switched = self._switched(count, task, cpu)
        if key is None or not count or (key[0] == key).all():
            first = 0 if key is None or not count else int(key[0])
            return [Stream(first, None, np.flatnonzero(switched))] if count else []
        streams = []
        order = np.argsort(key, kind="stable")
        ends = np.flatnonzero(np.diff(key[order])) + 1
        for rows in np.split(order, ends):
            streams.append(Stream(int(key[rows[0]]), rows, np.flatnonzero(switched[rows])))
        return streams

    def _switched(
        self, count: int, task: NDArray[np.uint32] | None, cpu: NDArray[np.uint32] | None
    ) -> NDArray[np.bool_]:
        """Rows before which their task was switched in."""
        if task is None or (cpu is None and self.scope == "task"):
            return np.zeros(count, bool)
        if cpu is None:
            cpu = np.zeros(count, np.uint32)
        return _changes(cpu, task, self.last_task) | _changes(task, cpu, self.last_cpu)


def _changes(
    key: NDArray[np.uint32], value: NDArray[np.uint32], last: dict[int, int]
) -> NDArray[np.bool_]:
    """Rows whose value differs from that of the row before with the same key."""
    changed = np.zeros(len(key), bool)
    if not len(key):
        return changed
    order = np.argsort(key, kind="stable")
    sorted_key, sorted_value = key[order], value[order]
    begins = np.concatenate([[True], sorted_key[1:] != sorted_key[:-1]])
    differs = np.concatenate([[False], sorted_value[1:] != sorted_value[:-1]]) & ~begins
    for i in np.flatnonzero(begins):
        before = last.get(int(sorted_key[i]))
        differs[i] = before is not None and before != sorted_value[i]
    changed[order] = differs
    ends = np.append(np.flatnonzero(begins)[1:] - 1, len(order) - 1)
    last.update(zip(sorted_key[ends].tolist(), sorted_value[ends].tolist(), strict=True))
    return changed
