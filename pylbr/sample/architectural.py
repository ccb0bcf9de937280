"""The architectural engine: a processor that retires every branch of a trace.

Its event selects, counters, LBR control and IA32_DEBUGCTL are written as Linux writes them.  A
counter that overflows interrupts; the handler reads the records, loads the counter with what is
left of the next period, and acknowledges.  The answer is that of `lbrcore.replay.Replay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lbrcore.events import CountedEvent
from lbrcore.lbr import LbrState
from lbrcore.replay import SampleBuffer
from lbrcore.rows import Rows
from lbrcore.scan import find as find_row
from lbrcore.scan import total
from pylbr.arch.bits import (
    CTL_LBREN,
    DBG_EXTN_CFG_LBRV2EN,
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    DEBUGCTL_LBR,
    EVTSEL_EN,
    EVTSEL_EN_LBR_LOG,
    EVTSEL_INT,
    EVTSEL_OS,
    EVTSEL_USR,
    IA32_DEBUGCTL,
    STATUS_LBR_FRZ,
)
from pylbr.arch.features import CpuModel
from pylbr.arch.registers import find, registers
from pylbr.cpu import Processor
from pylbr.cpu.hardware import Facility
from pylbr.cpu.msr.access import MsrAccess
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import PmuState
from pylbr.sample.counters import assign
from pylbr.sample.sample_setup import SampleSetup

__all__ = ["ProcessorReplay"]

#: Selects no event that a trace carries; what it counts is in the trace's `events`.
_OF_THE_TRACE = 0xFF
#: Branches handed to the processor at once: in place, gathered from columns, and while counters
#: log, when it copies them again after every overflow.
_IN_PLACE, _GATHERED, _LOGGING = 1 << 20, 1 << 14, 1 << 8
_RECORDS = frozenset({"lbr.from", "lbr.to", "lbr.info", "lbr.single", "amd.from", "amd.to"})


class _Msrs(NamedTuple):
    """Numbers of the registers that sampling takes."""

    select: tuple[int, ...]
    counter: tuple[int, ...]
    global_ctrl: int | None
    acknowledge: int | None
    enable: int

    @classmethod
    def of(cls, model: CpuModel) -> _Msrs:
        if model.amd:
            select, counter, kind = "PERF_CTL{}", "PERF_CTR{}", "PERF_CNTR_GLOBAL_{}"
            control, status = "CTL", "STATUS_CLR"
        else:
            counter = "IA32_A_PMC{}" if model.pmu.full_width_writes else "IA32_PMC{}"
            select, kind = "IA32_PERFEVTSEL{}", "IA32_PERF_GLOBAL_{}"
            control, status = "CTRL", "STATUS_RESET"
        numbers = range(model.pmu.counters)
        has_global = model.pmu.version >= 2
        enable = "IA32_LBR_CTL" if model.arch else "DBG_EXTN_CFG" if model.amd else None
        return cls(
            tuple(find(model, select.format(n)).index for n in numbers),
            tuple(find(model, counter.format(n)).index for n in numbers),
            find(model, kind.format(control)).index if has_global else None,
            find(model, kind.format(status)).index if has_global else None,
            find(model, enable).index if enable else IA32_DEBUGCTL,
        )


class _Counter:
    """An event, and how far its period has come."""

    def __init__(self, index: int, event: CountedEvent, place: int | None, msr: int) -> None:
        self.index, self.event, self.place, self.msr = index, event, place, msr
        self.skid = event.skid
        self.ordinal = 0
        self.period = event.period_at(0)
        self.left = self.period  # counted down here if no counter of the processor does
        self.overflowed = False
        self.since: int | None = None  # what the counter holds, if nothing ran since it was read

    def reload(self, since: int) -> int:
        """Begin the next period, `since` events after an overflow; what is left of it."""
        self.overflowed = False
        self.ordinal += 1
        if self.event.jitter:
            self.period = self.event.period_at(self.ordinal)
        self.left = self.period if since >= self.period else self.period - since
        return self.left


class ProcessorReplay:
    """A processor whose counters sample it, driven by a trace.

    Parameters
    ----------
    setup : SampleSetup
        Processor, branch filter, depth, freezing.
    events : sequence of CountedEvent
        Those of the setup, perhaps with other seeds.

    Attributes
    ----------
    cpu : Processor
    count : int
        Of events.

    Notes
    -----
    Used by one thread at a time.  An event of no counter (`events.EVERY_BRANCH`) is counted
    here, and interrupts as a device outside the processor would.
    """

    def __init__(self, setup: SampleSetup, events: Sequence[CountedEvent]) -> None:
        self.setup, self.events, self.count = setup, tuple(events), len(events)
        model = setup.processor
        self.cpu = Processor(model, self, self._registers)
        self._msrs = _Msrs.of(model)
        places = assign(setup.events, model)
        self._counters = [
            _Counter(i, event, place, 0 if place is None else self._msrs.counter[place])
            for i, (event, place) in enumerate(zip(events, places, strict=True))
        ]
        self._outside = [c for c in self._counters if c.place is None]
        self._inside = [c for c in self._counters if c.place is not None]
        self._width = 1 << model.pmu.counter_width
        self._loadable = self._width - 1 if model.pmu.full_width_writes else 0xFFFFFFFF
        self._acknowledge = self._msrs.acknowledge
        self._due: int | None = None  # rows until the PMI is taken; 0: after this one
        self._interrupted = False
        self._program()

    def _registers(self, model: CpuModel, pmu: PmuState) -> MsrAccess:
        lbr = LbrState(self.setup.config(classes=True))
        return MsrAccess(Msrs(model, pmu, Facility(lbr, model.legacy is not None)))

    @property
    def lbr(self) -> LbrState:
        """The facility of the processor."""
        return self.cpu.lbr

    # Software: what Linux does

    def _program(self) -> None:
        """Set the processor up and let it record and count."""
        wrmsr, msrs, model = self.cpu.wrmsr, self._msrs, self.setup.processor
        control = self.setup.control()
        self._debugctl = DEBUGCTL_FREEZE_LBRS_ON_PMI if self.setup.freeze else 0
        if model.arch:
            wrmsr(find(model, "IA32_LBR_DEPTH").index, self.setup.facility().depth)
            self._enabled = control
        elif model.amd:
            wrmsr(find(model, "LBR_SELECT").index, control)
            self._enabled = DBG_EXTN_CFG_LBRV2EN
        else:
            if model.legacy and model.legacy.select:
                wrmsr(find(model, "MSR_LBR_SELECT").index, control)
            self._debugctl |= DEBUGCTL_LBR
            self._enabled = self._debugctl
        wrmsr(IA32_DEBUGCTL, self._debugctl)
        wrmsr(msrs.enable, self._enabled)
        log = EVTSEL_EN_LBR_LOG if self.setup.logs else 0
        used = 0
        for counter in self._inside:
            n = counter.place or 0
            what = self.setup.events[counter.index]
            rings = (EVTSEL_USR if counter.event.cpls & 0b1110 else 0) | (
                EVTSEL_OS if counter.event.cpls & 1 else 0)
            may_log = log if self.lbr.config.event_counters >> n & 1 else 0
            wrmsr(msrs.select[n], (what.select or 0) | rings | EVTSEL_INT | EVTSEL_EN | may_log)
            wrmsr(counter.msr, -counter.left & self._loadable)
            used |= 1 << n
        for n in range(4 if log else 0):
            if self.lbr.config.event_counters >> n & 1 and not used >> n & 1:
                wrmsr(msrs.select[n], _OF_THE_TRACE | EVTSEL_USR | EVTSEL_OS | EVTSEL_EN | log)
                used |= 1 << n
        if msrs.global_ctrl is not None:
            wrmsr(msrs.global_ctrl, used)
        streamlined = model.pmu.version >= 4 or model.amd
        self._acknowledged = used | (STATUS_LBR_FRZ if streamlined else 0)
        self._rearms = bool(self.setup.freeze) and not streamlined

    def pmi(self, cpu: Processor) -> bool:
        """Stop the batch at the PMI; the counter that overflowed is found afterwards."""
        self._interrupted = True
        return True

    def pebs(self, cpu: Processor, counter: int, record: bytes) -> int | None:
        """No counter is set up for it."""
        raise AssertionError("PEBS is off")

    def _handle(self, row: int, out: SampleBuffer) -> None:
        """The PMI handler: a sample of each event that has overflowed; `row` came before."""
        cpu = self.cpu
        for counter in self._counters:
            if not counter.overflowed:
                continue
            out.add(cpu.lbr, row, counter.index, counter.period)
            if counter.place is None:
                counter.reload(-counter.left)
                continue
            since = counter.since
            if since is None:
                since = cpu.rdmsr(counter.msr)
            cpu.wrmsr(counter.msr, -counter.reload(since) & self._loadable)
        if self._acknowledge is not None:
            cpu.wrmsr(self._acknowledge, self._acknowledged)
        if self._rearms:
            cpu.wrmsr(self._msrs.enable, self._enabled)

    def switch_in(self, reset: bool) -> None:
        """The task was out: recording was off, and the records may have to go.

        Parameters
        ----------
        reset : bool
            Zero the records, as Linux does unless it saves and restores them.
        """
        cpu, model = self.cpu, self.setup.processor
        if reset and model.arch:
            depth = find(model, "IA32_LBR_DEPTH").index
            cpu.wrmsr(depth, cpu.rdmsr(depth))
        elif reset:
            for index, register in registers(model).items():
                if register.row.accessor in _RECORDS:
                    cpu.wrmsr(index, 0)
        on = cpu.rdmsr(self._msrs.enable)
        enable = (DBG_EXTN_CFG_LBRV2EN if model.amd else CTL_LBREN if model.arch
                  else DEBUGCTL_LBR)
        cpu.wrmsr(self._msrs.enable, on & ~enable)
        cpu.wrmsr(self._msrs.enable, on)

    # The trace

    def run(
        self, branches: Rows | NDArray[np.void], out: SampleBuffer, first: int = 0,
        last: int | None = None,
    ) -> int:
        """Retire rows `first` to `last`; as `lbrcore.replay.Replay.run`.

        Raises
        ------
        ValueError
            `out` is too small or for another depth; or a branch has a class, flags or a CPL out
            of range, after which the processor holds what came before it, or less.
        """
        last = len(branches) if last is None else last
        if not 0 <= first <= last <= len(branches):
            raise ValueError(f"first, last: {first}, {last} of {len(branches)} rows")
        if out.depth != self.lbr.depth:
            raise ValueError(f"out: is for depth {out.depth}, not {self.lbr.depth}")
        if out.capacity < self.count:
            raise ValueError(f"out: must have room for {self.count} samples, one an event")
        gathered = isinstance(branches, Rows)
        most = _LOGGING if self.setup.logs else _GATHERED if gathered else _IN_PLACE
        while first < last:
            stop = min(last, first + most)
            if isinstance(branches, Rows):
                block = branches.gather(first, stop)
            else:
                block = branches[first:stop]
            taken = self._take(block, first, out)
            first += taken
            if taken < len(block):
                break
        return first

    def _take(self, block: NDArray[np.void], base: int, out: SampleBuffer) -> int:
        """Rows of a block until it ends or `out` is full."""
        at, n, room = 0, len(block), out.capacity - self.count
        while at < n and out.count <= room:
            end = n if self._due is None else min(n, at + self._due)
            for counter in self._outside:
                if not counter.overflowed:
                    reached = find_row(block, counter.event, counter.left, at, end)
                    end = end if reached is None else reached + 1
            first = at
            try:
                at = self.cpu.record(block, first, end)
            except ValueError:
                raise ValueError(
                    f"branches: row {base + first} or one of the {end - first} after it has a "
                    "class, flags or a CPL out of range") from None
            if self._due is not None:
                self._due -= at - first
            for counter in self._outside:
                counter.left -= total(block, counter.event, first, at)
                if counter.left <= 0 and not counter.overflowed:
                    self.cpu.raise_pmi()
            if self._interrupted:
                self._seen()
            if self._due == 0:
                self._due = None
                self._handle(base + at - 1, out)
        return at

    def _seen(self) -> None:
        """Find which counters have overflowed, and when their interrupt is taken."""
        self._interrupted = False
        for counter in self._counters:
            if counter.overflowed:
                continue
            if counter.place is None:
                counter.overflowed = counter.left <= 0
            else:
                # Loaded with a negative number: its highest bit is clear once it is past 0.
                value = self.cpu.rdmsr(counter.msr)
                counter.overflowed = value < self._width >> 1
                counter.since = None if counter.skid else value
            if counter.overflowed:
                self._due = counter.skid if self._due is None else min(self._due, counter.skid)

