"""Classes of the branches of a trace that has none, out of the files that were mapped."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from lbrcore import BranchClass
from pylbr.errors import TraceError
from pylbr.files.module import Module
from pylbr.trace.metadata import Task
from pylbr.x86 import Decoded, classify

__all__ = ["ClassFiller"]

_MAX_INSTRUCTION = 15


class ClassFiller:
    """Finds the classes of branches in the files that a trace lists as mapped.

    Parameters
    ----------
    modules : sequence of Module
    path : object
        The trace, for messages.
    tasks : sequence of Task
        Which process a thread is of; only needed where processes differ in what they map.
    """

    def __init__(
        self, modules: Sequence[Module], path: object, tasks: Sequence[Task] = ()
    ) -> None:
        self._path = path
        self._modules = sorted(modules, key=lambda module: module.start)
        self._starts = [module.start for module in self._modules]
        self._longest = max((module.size for module in modules), default=0)
        self._pids = {task.tid: task.pid for task in tasks}
        self._many = len({module.pid for module in modules} - {None}) > 1
        self._known: dict[tuple[int, int | None], Decoded | None] = {}

    def classes(
        self, source: np.ndarray, target: np.ndarray, start: int = 0,
        task: np.ndarray | None = None,
    ) -> np.ndarray:
        """(n,) uint8 classes of branches from `source` to `target`.

        An instruction that is no branch, and a direct branch that did not go to its target,
        was left by an interrupt or exception.

        Parameters
        ----------
        start : int
            Index in the trace of the first, for messages.
        task : (n,) array, optional
            Thread ids.

        Raises
        ------
        TraceError
            No module covers an address, its file cannot be read, or it holds no code there.
        """
        if task is None or not self._many:
            return self._of_process(source, target, start, None)
        result = np.empty(len(source), np.uint8)
        for tid in np.unique(task).tolist():
            mine = np.flatnonzero(task == tid)
            pid = self._pids.get(tid, tid)
            result[mine] = self._of_process(source[mine], target[mine], start, pid)
        return result

    def _of_process(
        self, source: np.ndarray, target: np.ndarray, start: int, pid: int | None
    ) -> np.ndarray:
        addresses, inverse = np.unique(source, return_inverse=True)
        kinds = np.empty(len(addresses), np.uint8)
        lengths = np.zeros(len(addresses), np.uint64)
        targets = np.zeros(len(addresses), np.uint64)
        for i, address in enumerate(addresses.tolist()):
            key = address, pid
            if key not in self._known:
                self._known[key] = self._decode(address, pid)
            decoded = self._known[key]
            if decoded is None:
                index = start + int(np.argmax(source == address))
                raise TraceError(self._path, self._complaint(address, pid, index))
            kinds[i] = _INTERRUPTED if decoded.branch is None else decoded.branch
            lengths[i], targets[i] = decoded.length, decoded.target or 0
        result, after = kinds[inverse], source + lengths[inverse]
        direct, meant = targets[inverse] != 0, targets[inverse]
        fell = (result == BranchClass.COND) & (target == after) & (meant != after)
        result[fell] = BranchClass.NOT_TAKEN
        result[direct & (target != meant) & ~fell] = _INTERRUPTED
        return result

    def _module(self, address: int, pid: int | None) -> Module | None:
        """The module at `address`; of several the one of this process, else the latest."""
        found = None
        i = bisect_right(self._starts, address) - 1
        while i >= 0 and address - self._starts[i] < self._longest:
            module = self._modules[i]
            if address < module.start + module.size:
                if module.pid == pid or pid is None:
                    return module
                if module.pid is None:
                    found = found or module
            i -= 1
        return found

    def _decode(self, address: int, pid: int | None) -> Decoded | None:
        module = self._module(address, pid)
        code = None if module is None else self._read(module, address - module.start)
        return classify(code, address) if code else None

    def _read(self, module: Module, offset: int) -> bytes | None:
        """The bytes of one instruction; None if the file cannot be read."""
        size = min(_MAX_INSTRUCTION, module.size - offset)
        try:
            number = os.open(module.path, os.O_RDONLY)
        except (OSError, ValueError):  # a NUL in the path
            return None
        try:
            return os.pread(number, size, module.file_offset + offset)
        except (OSError, OverflowError):
            return None
        finally:
            os.close(number)

    def _complaint(self, address: int, pid: int | None, index: int) -> str:
        where = f"branch {index} has no class, and at its FROM {address:#x}"
        module = self._module(address, pid)
        if module is None:
            return f"{where} no module is mapped; name the program with --module FILE@ADDRESS"
        if not os.path.isfile(module.path):
            return f"{where} lies {module.path}, which cannot be read; put the file back"
        return f"{where} {module.path} holds no instruction; is it the file that ran?"


_INTERRUPTED = BranchClass.INTERRUPT
