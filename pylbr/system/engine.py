"""The engine of whole systems: Linux under ``qemu-system-x86_64`` with the recorder's plugin."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from lbrcore import INFO_ALL, LbrConfig, LbrState
from pylbr.arch.bits import CTL_OS, CTL_USR, INFO_CYC_CNT, INFO_CYC_CNT_VALID, INFO_MISPRED
from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Comm
from pylbr.record._drain import Drain
from pylbr.record.engine import Outcome, Request, Sink
from pylbr.record.filters import accepted_classes
from pylbr.record.parts import PLUGIN
from pylbr.record.process import Process, exit_code
from pylbr.record.tasks import mapping
from pylbr.record.toolchain import built, launcher
from pylbr.record.wire import Wire, WireOptions
from pylbr.system.mapped import Mapped
from pylbr.system.monitor import Monitor

__all__ = ["SystemEngine", "system_command"]

#: Between two looks at what the processors have handed over.
_POLL_SECONDS: Final = 0.04
_IDLE_SECONDS: Final = 0.25
#: Between two looks at the gates: a share of the time since they changed, and at most so long.
_GATES_SHARE: Final = 0.05
_GATES_SECONDS: Final = 1.0
#: Processors at a time.
_SLOTS: Final = 256
#: The one process of a file, for which all code stands that is not the kernel's.
_GUEST: Final = 1
#: The lower half, from the first address that Linux gives to programs (vm.mmap_min_addr).
_LOWEST: Final = 1 << 16
_HALF: Final = 1 << 47
_VARIABLE: Final = "PYLBR_QEMU_SYSTEM"


class SystemEngine:
    """Runs a system under QEMU with the plugin of this package; kernel and programs are sampled."""

    name = "QEMU system mode"
    cycles = "a price per instruction class"

    def run(self, request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
        """See `Engine.run`."""
        command = system_command(request.command)
        control = request.control
        options = WireOptions(
            counted=request.counted, period=request.period, accept=accepted_classes(control),
            depth=request.depth, slots=_SLOTS,
            halves=(1 if control & CTL_USR else 0) | (2 if control & CTL_OS else 0),
            counted_halves=request.privileges,
        )
        with Wire(options) as wire, Monitor() as monitor:
            mapped = Mapped(monitor, request.vmlinux, command)
            run = _Run(wire, request, sink, monitor, mapped)
            plugin = f"{str(built(PLUGIN)).replace(',', ',,')},wire={wire.path}"
            words = [command[0], "-plugin", plugin, *monitor.option, *command[1:]]
            try:
                with _System(launcher(), words) as process:
                    run.follow(process, idle)
                return run.finish(process)
            finally:
                wire.stop()


class _System(Process):
    """QEMU, under the launcher."""

    def __init__(self, launch: str, words: list[str]) -> None:
        self._start(launch, words, dict(os.environ))


class _Run:
    """One run of a system: from the shared memory to the sink."""

    def __init__(
        self, wire: Wire, request: Request, sink: Sink, monitor: Monitor, mapped: Mapped
    ) -> None:
        self._wire, self._sink, self._monitor, self._mapped = wire, sink, monitor, mapped
        self._info = INFO_ALL & ~INFO_MISPRED
        if not request.cycles:
            self._info &= ~(INFO_CYC_CNT | INFO_CYC_CNT_VALID)
        state = LbrState(LbrConfig(info_mask=self._info))
        state.depth, state.ctl = request.depth, request.control
        self._drain = Drain(wire.memory, state, request.cycles, system=True)
        self._kept: list[SampleBatch] | None = []  # until the kernel's place is known
        self._stacks = 0
        self._outcome = Outcome()
        self._started = self._changed = time.monotonic()
        self._next_gates, self._gates = 0.0, np.empty(0, np.uint64)

    def follow(self, process: Process, idle: Callable[[], None]) -> None:
        """Read along until QEMU has ended."""
        next_idle = time.monotonic() + _IDLE_SECONDS
        began = self._mapped.began + 1
        self._sink.record(Comm(_GUEST, _GUEST, "guest", time=began))
        self._sink.record(mapping(_GUEST, _GUEST, _LOWEST, _HALF - _LOWEST, 0, "//anon", began))
        while process.running():
            self._watch_gates()
            self._sweep()
            if time.monotonic() >= next_idle:
                next_idle = time.monotonic() + _IDLE_SECONDS
                self._look()
                idle()
            process.wait(_POLL_SECONDS)
        self._outcome.seconds = time.monotonic() - self._started

    def finish(self, process: Process) -> Outcome:
        """Read what is left, close the books."""
        self._sweep()
        self._look()
        outcome = self._outcome
        for batch in self._kept or ():
            self._sink.samples(batch)
        outcome.exit_code = exit_code(process.status or 0)
        outcome.remarks += process.remarks + self._mapped.remarks()
        if self._stacks and not len(self._gates):
            outcome.remarks.append("QEMU's monitor showed no interrupt gates: an interrupt after a "
                                   "return or an indirect jump may stand as its target")
        if self._drain.cut:
            outcome.remarks.append(
                f"{self._drain.cut:,} of {self._stacks:,} stacks are shorter: an interrupt, an "
                "exception or what -j leaves out comes before")
        for count, what in (
            (self._wire.lost_threads, "processors or blocks did not fit and are missing"),
            (self._drain.damaged, "messages were damaged and are missing"),
        ):
            if count:
                outcome.remarks.append(f"{count} {what}")
        return outcome

    def _watch_gates(self) -> None:
        now = time.monotonic()
        if now < self._next_gates:
            return
        gates = self._monitor.gates()
        if gates is not None and not np.array_equal(gates, self._gates):
            self._gates, self._changed = gates, now
            self._drain.gates(gates)
        self._next_gates = now + min(_GATES_SHARE * (now - self._changed), _GATES_SECONDS)

    def _look(self) -> None:
        """Write what has become known of the kernel and its modules, and what waited for it."""
        for record in self._mapped.news(self._wire.blocks):
            self._sink.record(record)
        if self._kept is not None and self._mapped.known:
            for batch in self._kept:
                self._sink.samples(batch)
            self._kept = None

    def _sweep(self) -> None:
        for slot, *_ in self._drain.slots():
            complete = False
            while not complete:
                _, complete = self._drain.poll(slot)
                self._flush()

    def _flush(self) -> None:
        columns = self._drain.take()
        if not len(columns["ip"]):
            return
        columns["pid"][:] = _GUEST
        columns["tid"][:] = _GUEST
        self._stacks += len(columns["ip"])
        batch = SampleBatch.build(**columns, info_mask=self._info)
        if self._kept is None:
            self._sink.samples(batch)
        else:
            self._kept.append(batch)


def system_command(words: Sequence[str]) -> list[str]:
    """A system's command line with its QEMU in front: the one given, ``$PYLBR_QEMU_SYSTEM``, or the
    one in PATH.

    Raises
    ------
    CommandError
        Something that goes not together with a recording.
    UnsupportedFeature
        No QEMU, or one without plugins.
    """
    own = bool(words) and not words[0].startswith("-")
    wanted = words[0] if own else os.environ.get(_VARIABLE, "qemu-system-x86_64")
    arguments = list(words[1:] if own else words)
    if own and not Path(wanted).name.startswith("qemu-system"):
        raise CommandError(f"--system: {wanted} is no qemu-system-x86_64; give its arguments, such "
                           "as -kernel FILE")
    for number, word in enumerate(arguments):
        following = arguments[number + 1] if number + 1 < len(arguments) else ""
        option = word.lstrip("-") if word.startswith("-") else ""
        if option == "enable-kvm" or (option == "accel" and following.startswith("kvm")) or (
                option in ("machine", "M") and "accel=kvm" in following):
            raise CommandError(f"{word}: under KVM no code is translated, and none is recorded; "
                               "leave it out")
        if option == "daemonize":
            raise CommandError("-daemonize: a recording ends when QEMU does; leave it out")
    path = shutil.which(wanted)
    if path is None:
        raise UnsupportedFeature(f"no {wanted} found: install QEMU's system mode (Debian: "
                                 f"qemu-system-x86), or point {_VARIABLE} at one")
    said = subprocess.run([path, "-h"], capture_output=True, text=True, errors="replace",
                          check=False).stdout
    if "-plugin" not in said:
        raise UnsupportedFeature(f"{path} was built without TCG plugins: install QEMU's system "
                                 f"mode (Debian: qemu-system-x86), or point {_VARIABLE} at one")
    return [path, *arguments]
