"""Processes under recording: followed through threads, forks and programs that they execute."""

from __future__ import annotations

import errno
import os
import resource
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pylbr.perf.stacks import Comm, Exit, Fork, Lost
from pylbr.record.engine import Sink
from pylbr.record.native.blob import END_NAMES, SKIP_NAMES, SKIP_RESTING, Blob
from pylbr.record.native.bursts import Pace
from pylbr.record.native.image import Image, Limits
from pylbr.record.native.inject import Injection, give_stacks, inject
from pylbr.record.native.masked import Masked
from pylbr.record.native.numbers import Numbers
from pylbr.record.native.obstacles import obstacle
from pylbr.record.native.patches import CALL, calls, sequences
from pylbr.record.native.perf import SideRecord
from pylbr.record.native.ptrace import Tracee, TraceeGone, settle
from pylbr.record.native.ranges import CLOSED, code_ranges, mappings
from pylbr.record.native.target import ahead, let_go, stopped_threads, threads_of
from pylbr.record.native.ticks import Side, Ticks
from pylbr.record.native.weights import Weights
from pylbr.record.native.withdraw import inside, withdraw
from pylbr.record.process import is_gone
from pylbr.record.tasks import mapping

__all__ = ["Session"]

_LOST, _COMM, _EXIT, _FORK, _MMAP2 = 2, 3, 4, 7, 10
_COMM_EXEC: Final = 1 << 13
_PROT_WRITE: Final = 2
#: What is counted in each image, and how many numbers that is.
_COUNTS: Final = {
    "ended": len(END_NAMES), "skipped": len(SKIP_NAMES), "full": 1, "ticks": 1, "left_out": 1,
    "damaged": 1,
}  # fmt: skip
#: How long threads may take to leave the blob, and for how long each runs between two looks.
_LEAVE_SECONDS: Final = 5.0
_STEP_SECONDS: Final = 0.002
#: How long a dynamic loader may take before its program is recorded anyway, seconds.
_LOADER_SECONDS: Final = 0.25


#: Stacks (`record` of abi.h), and of each the process, the thread, and the CPU time it stands for.
Stacks = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(slots=True)
class _Process:
    """A process; `injection` is None until the blob is in it."""

    pid: int
    injection: Injection | None = None
    injected: int = 0  # CLOCK_MONOTONIC, ns
    threads: dict[int, int] = field(default_factory=dict)  # tid: key of its ticks


def _check_reach(pid: int) -> None:
    """Raise OSError if something keeps the recorder out of a process."""
    if reason := obstacle(pid):
        raise OSError(errno.EPERM, reason)


class Session:
    """Everything that a recording follows.

    Parameters
    ----------
    blob : Blob
    limits : Limits
    ticks : Ticks
    pace : Pace
    sink : Sink

    Attributes
    ----------
    pace : Pace
        Of the ticks, as they are now.
    unreached : int
        Processes that ended before they could be recorded.
    remarks : list of str
    """

    def __init__(
        self, blob: Blob, limits: Limits, ticks: Ticks, pace: Pace, sink: Sink
    ) -> None:
        self._blob, self._limits, self._ticks, self._sink = blob, limits, ticks, sink
        self.pace = pace
        self._lanes = min(2 * (os.cpu_count() or 1), 16)
        self._processes: dict[int, _Process] = {}
        self._images: list[Image] = []
        self._retired: dict[str, np.ndarray] = {}
        self._pending: list[int] = []
        self._keys: dict[int, tuple[int, int]] = {}
        self._side: Side | None = None
        self._numbers = Numbers()
        self._weights = Weights(ticks)
        self._masked = Masked(pace.period, ticks.spent, self._in_tick)
        self._root, self._started, self._only = 0, False, 0
        self.unreached = 0
        self.remarks: list[str] = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def total(self, name: str) -> np.ndarray:
        """`ended`, `skipped`, `full`, `ticks`, `left_out` or `damaged` of all processes."""
        result = self._retired.get(name, np.zeros(_COUNTS[name], np.uint64))
        for image in self._images:
            result = result + _count(image, name)
        return result

    def watch(self, pid: int) -> None:
        """Follow a process, which has still to execute its program, and its descendants."""
        self._root = pid
        self._side = self._ticks.watch([pid])

    @property
    def descriptors(self) -> list[int]:
        """To poll: readable when there is something to follow."""
        return self._side.descriptors if self._side else []

    # ---- recording a process ----

    def enter(self, tracee: Tracee) -> None:
        """Record the process of a stopped thread from here on.

        Raises
        ------
        OSError
        TraceeGone
        """
        pid = tracee.tid
        process = self._processes.setdefault(pid, _Process(pid))
        for tid in list(process.threads):
            self._forget(process, tid)
        fd = self._tick(process, pid)
        process.injection = inject(tracee, self._blob, self._limits, self._lanes, fd)
        if self._side:
            self._side.entered(pid)
        process.injected = time.monotonic_ns()
        self._add(process.injection.image)
        self._publish(process)
        if fd >= 0:
            self._ticks.enable(fd)

    def join(self, pid: int, only: int = 0) -> None:
        """Record a process that has been running, and its descendants; `only`: one thread.

        Raises
        ------
        OSError
        TraceeGone
        """
        _check_reach(pid)
        self._root, self._started, self._only = pid, True, only
        self._side = self._ticks.watch(threads_of(pid))
        for _ in calls(mappings(pid)):  # remembered: it takes long to search large files
            pass
        process = self._processes[pid] = _Process(pid)
        keys = {tid: self._tick(process, tid) for tid in threads_of(pid) if only in (0, tid)}
        with ahead():
            self._join(process, keys)
        # It runs again: what takes time comes now, and the first tick after that.
        self._describe(process)
        self._publish(process)
        for fd in process.threads.values():
            self._ticks.enable(fd)
        if not only:
            self._tick_others(process)

    def _join(self, process: _Process, keys: dict[int, int]) -> None:
        """Put the blob into a process while all its threads stand still."""
        tracees = stopped_threads(process.pid)
        try:
            process.injection = injection = inject(
                tracees[0], self._blob, self._limits, self._lanes, keys.get(tracees[0].tid, -1)
            )
            process.injected = time.monotonic_ns()
            self._add(injection.image)
            give_stacks(
                ((t, keys.get(t.tid, -1)) for t in tracees[1:]), self._blob, injection
            )
            for tracee in tracees:
                tracee.set_registers(injection.moved(tracee.registers()))
        finally:
            let_go(tracees)

    def _add(self, image: Image) -> None:
        image.tick(self.pace.burst, self.pace.period)
        self._images.append(image)

    def _describe(self, process: _Process) -> None:
        """Names and mappings that were there before perf was asked."""
        pid, now = process.pid, time.monotonic_ns()
        for tid in threads_of(pid):
            with suppress(OSError), open(f"/proc/{pid}/task/{tid}/comm", "rb") as file:
                name = os.fsdecode(file.read().rstrip(b"\n"))
                self._sink.record(self._numbers.named(Comm(pid, tid, name, tid == pid, now)))
        own = process.injection.own if process.injection else []
        for m in mappings(pid):
            if "x" in m.permissions and not any(m.start < b and a < m.end for a, b in own):
                size, path = m.end - m.start, m.path or "//anon"
                found = mapping(pid, pid, m.start, size, m.offset, path, now)
                self._sink.record(self._numbers.mapped(found))

    def leave(self) -> None:
        """Take the blob out of every process that lives on; no window runs any more."""
        for process in list(self._processes.values()):
            if process.injection and not is_gone(process.pid):
                for tid in list(process.threads):  # what ticks is soon in the blob again
                    self._forget(process, tid)
                try:
                    with ahead():
                        self._withdraw(process)
                except TraceeGone:
                    pass
                except OSError as error:
                    self._remark(
                        f"process {process.pid}: the recorder stays in it, inactive: "
                        f"{error.strerror}"
                    )

    def _withdraw(self, process: _Process) -> None:
        assert process.injection is not None
        _check_reach(process.pid)
        tracees = stopped_threads(process.pid)
        deadline = time.monotonic() + _LEAVE_SECONDS
        try:
            while late := inside(tracees, process.injection):
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, "a thread does not leave its code")
                for tracee in late:
                    tracee.step_on(_STEP_SECONDS)
            blocked = list(self._masked.unblocked)
            if not withdraw(tracees, self._blob, process.injection, blocked):
                self._remark(
                    f"process {process.pid}: memory of the recorder stays mapped, unused: a "
                    "handler of a signal will return through it"
                )
            process.injection = None
        finally:
            let_go(tracees)

    def _in_tick(self, pid: int, tracee: Tracee) -> bool:
        injection = self._processes[pid].injection
        return injection is not None and bool(inside([tracee], injection))

    def attach(self, pid: int) -> None:
        """Record a running process that has executed another program."""
        try:
            _check_reach(pid)
            with Tracee(pid) as tracee:
                tracee.interrupt()
                registers = tracee.registers()
                if self._is_loading(tracee, registers.rip):
                    tracee.run_to(tracee.entry, _LOADER_SECONDS)
                    registers = tracee.registers()
                self.enter(tracee)
                settle([(tracee, registers)])
            self._tick_others(self._processes[pid])
        except TraceeGone:
            self.unreached += 1
        except OSError as error:
            if is_gone(pid):
                self.unreached += 1
                return
            self._remark(f"process {pid} is not recorded: {error.strerror}")

    @staticmethod
    def _is_loading(tracee: Tracee, rip: int) -> bool:
        """Whether the thread is in the dynamic loader, before the program's first instruction."""
        base = tracee.loader
        if not base:
            return False
        found = mappings(tracee.tid)
        path = next((m.path for m in found if m.start == base), None)
        return any(m.path == path and m.start <= rip < m.end for m in found)

    def _tick(self, process: _Process, tid: int) -> int:
        try:
            fd = self._ticks.add(process.pid, tid, self.pace.period)
        except ProcessLookupError:
            return -1
        process.threads[tid] = fd
        self._keys[fd] = self._numbered(process.pid, tid)
        return fd

    def _numbered(self, pid: int, tid: int) -> tuple[int, int]:
        shift = self._numbers.shift(pid)
        return pid + shift, tid + shift

    def _tick_others(self, process: _Process) -> None:
        """Let the threads tick that the process has started before it was reached."""
        try:
            tids = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
        except OSError:  # it is gone
            return
        for tid in tids:
            if tid not in process.threads and (fd := self._tick(process, tid)) >= 0:
                self._ticks.enable(fd)

    def _forget(self, process: _Process, tid: int) -> None:
        fd = process.threads.pop(tid, -1)
        if fd >= 0:
            self._keys.pop(fd, None)
            self._weights.forget(fd)
            self._ticks.remove(fd)

    def _publish(self, process: _Process) -> None:
        injection = process.injection
        found = mappings(process.pid) if injection else []
        if injection and found:
            closed = [(at, at + len(CALL), CLOSED) for at in injection.patched]
            code = code_ranges(found, injection.own)
            injection.image.publish(code + closed + sequences(found))

    # ---- perf's records ----

    def follow(self) -> list[Stacks]:
        """Handle what has happened to tasks and mappings.

        Returns
        -------
        list of Stacks
        """
        # In this order: what a thread wrote is read before its end is seen.
        records = self._side.records() if self._side else []
        stacks = [self._named(image.take()) for image in self._images]
        changed: dict[int, _Process] = {}
        for record in records:
            self._handle(record, changed)
        for process in changed.values():
            self._publish(process)
        self._retire()
        pending, self._pending = self._pending, []
        for pid in pending:
            self.attach(pid)
        self._masked.look(
            (process.pid, tid, fd) for process in self._processes.values()
            for tid, fd in process.threads.items() if process.injection
        )
        return [found for found in stacks if len(found[0])]

    def _named(self, stacks: np.ndarray) -> Stacks:
        """Stacks, and what is known of each."""
        self._masked.heard(stacks["key"].tolist())
        tasks = [self._keys.get(int(key), (0, 0)) for key in stacks["key"]]
        pid, tid = np.array(tasks, np.int32).reshape(-1, 2).T
        known = np.isin(stacks["key"], list(self._keys)) & (pid > 0)
        stacks = stacks[known]
        weights = self._weights.of(stacks["key"], stacks["weight"])
        return stacks, pid[known], tid[known], weights

    def _retire(self) -> None:
        """Unmap the memory that no process writes to any more."""
        used = {id(p.injection.image) for p in self._processes.values() if p.injection}
        for image in [image for image in self._images if id(image) not in used]:
            for name in _COUNTS:
                before = self._retired.get(name, np.zeros(_COUNTS[name], np.uint64))
                self._retired[name] = before + _count(image, name)
            self._images.remove(image)
            image.close()

    def keep_pace(self) -> None:
        """Change the pace of the ticks by what they have made."""
        if not self.pace.adapt(
            int(self.total("ended").sum()), int(self.total("ticks").sum()),
            int(self.total("skipped")[SKIP_RESTING]),
        ):
            return
        for image in self._images:
            image.tick(self.pace.burst, self.pace.period)
        for fd in self._keys:
            self._ticks.change(fd, self.pace.period)

    def stop(self) -> None:
        """Make no more windows."""
        for image in self._images:
            image.stop()

    def close(self) -> None:
        """Send no more ticks, and give everything back."""
        self.stop()
        for process in self._processes.values():
            for tid in list(process.threads):
                self._forget(process, tid)
        if self._side:
            self._side.close()
            self._side = None
        self._ticks.close()

    def _handle(self, record: SideRecord, changed: dict[int, _Process]) -> None:
        body, when = record.body, record.time
        if record.kind == _MMAP2:
            self._mapped(record, changed)
        elif record.kind == _COMM:
            pid, tid = struct.unpack_from("<ii", body)
            exec_ = bool(record.misc & _COMM_EXEC)
            if exec_:
                self._executed(pid, when)
            name = os.fsdecode(body[8:].split(b"\0", 1)[0])
            self._sink.record(self._numbers.named(Comm(pid, tid, name, exec_, when)))
        elif record.kind == _FORK:
            pid, ppid, tid, ptid = struct.unpack_from("<iiii", body)
            for said in self._numbers.forked(Fork(pid, ppid, tid, ptid, when)):
                self._sink.record(said)
            self._forked(pid, ppid, tid)
        elif record.kind == _EXIT:
            pid, ppid, tid, ptid = struct.unpack_from("<iiii", body)
            self._sink.record(self._numbers.ended(Exit(pid, ppid, tid, ptid, when)))
            self._ended(pid, tid)
        elif record.kind == _LOST:
            self._sink.record(Lost(struct.unpack_from("<QQ", body)[1], when))

    def _mapped(self, record: SideRecord, changed: dict[int, _Process]) -> None:
        pid, tid, start, length, offset = struct.unpack_from("<iiQQQ", record.body)
        path = os.fsdecode(record.body[64:].split(b"\0", 1)[0])
        process = self._processes.get(pid)
        injection = process.injection if process else None
        if process and injection:
            if any(start < high and low < start + length for low, high in injection.own):
                return
            changed[pid] = process
        found = mapping(pid, tid, start, length, offset, path, record.time)
        self._sink.record(self._numbers.mapped(found))

    def _executed(self, pid: int, when: int) -> None:
        """The process runs another program: the blob is gone from it."""
        process = self._processes.setdefault(pid, _Process(pid))
        if pid == self._root and not self._started:
            self._started = True
            return
        self._numbers.executed(pid)
        if when > process.injected:
            process.injection = None
            if pid not in self._pending:
                self._pending.append(pid)
            return
        for tid, fd in process.threads.items():  # entered before this record was read
            self._keys[fd] = self._numbered(pid, tid)

    def _forked(self, pid: int, parent: int, tid: int) -> None:
        if pid == parent:
            process = self._processes.get(pid)
        else:
            before = self._processes.get(parent)
            process = self._processes[pid] = _Process(
                pid, before.injection if before else None, before.injected if before else 0
            )
        if self._only:
            return
        if process and process.injection and tid not in process.threads:
            fd = self._tick(process, tid)
            if fd >= 0:
                self._ticks.enable(fd)
        elif pid != parent:
            self._pending.append(pid)

    def _ended(self, pid: int, tid: int) -> None:
        process = self._processes.get(pid)
        if process:
            self._forget(process, tid)
            if not process.threads:
                self._processes.pop(pid)
                self._numbers.forget(pid)

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def _count(image: Image, name: str) -> np.ndarray:
    return np.array(image.damaged, np.uint64) if name == "damaged" else image.counts(name)
