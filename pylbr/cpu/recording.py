"""Branches through the counters into the facility, and the PMIs that they cause."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag
from pylbr.arch.bits import DEBUGCTL_FREEZE_PERFMON_ON_PMI, STATUS_CTR_FRZ, STATUS_LBR_FRZ
from pylbr.arch.features import CpuModel
from pylbr.cpu import pebs
from pylbr.cpu.facility import effective
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import Armed, PmuState
from pylbr.cpu.saved.state import ModeState, is_number, need
from pylbr.errors import UnsupportedFeature

__all__ = ["Listener", "Mode", "Recorder"]

_64_BITS, _32_BITS = (1 << 64) - 1, (1 << 32) - 1


class Listener(Protocol):
    """Receives the interrupts and PEBS records of a `Recorder`."""

    def deliver_pmi(self) -> bool:
        """A performance-monitoring interrupt; True stops the batch after the branch."""

    def deliver_pebs(self, counter: int, record: bytes) -> int | None:
        """A PEBS record; the value returned reloads the counter."""


class Mode:
    """What records contain of a branch besides its own data.

    Attributes
    ----------
    in_tsx : bool
        In a transaction.
    cs_base : int
        Subtracted from addresses where records hold effective IPs.
    long_mode : bool
        False: the upper halves of recorded addresses are 0.
    """

    def __init__(self, model: CpuModel) -> None:
        self.model = model
        self.reset()

    def reset(self) -> None:
        """No transaction, 64-bit mode, base 0."""
        self.in_tsx, self.cs_base, self.long_mode = False, 0, True

    def copy(self) -> Mode:
        """An independent mode."""
        other = object.__new__(Mode)
        other.__dict__.update(self.__dict__)
        return other

    def save(self) -> ModeState:
        """The mode as plain data."""
        return ModeState(self.in_tsx, self.cs_base, self.long_mode)

    def load(self, saved: ModeState) -> None:
        """Take over a saved mode."""
        need(not saved.in_tsx or self.model.tsx, f"in_tsx: {self.model.name} has no transactions")
        need(is_number(saved.cs_base, _64_BITS), "mode.cs_base: must fit in 64 bits")
        self.in_tsx, self.cs_base, self.long_mode = (
            saved.in_tsx, saved.cs_base, saved.long_mode)

    def begin(self) -> None:
        """A transaction begins."""
        self._needs_tsx()
        self.in_tsx = True

    def commit(self) -> None:
        """The transaction, if one is open, ends."""
        self._needs_tsx()
        self.in_tsx = False

    def abort(self) -> None:
        """The open transaction ends."""
        self._needs_tsx()
        if not self.in_tsx:
            raise UnsupportedFeature("no transaction is open")
        self.in_tsx = False

    def _needs_tsx(self) -> None:
        if not self.model.tsx:
            raise UnsupportedFeature(f"{self.model.name} has no transactions")


class Recorder:
    """The record path of one processor.

    Parameters
    ----------
    msrs : Msrs
    mode : Mode
    """

    def __init__(self, msrs: Msrs, mode: Mode) -> None:
        self.msrs, self.mode = msrs, mode
        self.pmu: PmuState = msrs.pmu
        model = msrs.model
        #: A freeze sets a status bit (PMU version 4 up, PerfMonV2) and no enable changes.
        self._streamlined = model.pmu.version >= 4 or model.amd is not None
        self._has_status = model.pmu.version >= 2
        self._effective = effective(model)

    def copy(self, msrs: Msrs, mode: Mode) -> Recorder:
        """The record path of a copy of registers and mode."""
        other = object.__new__(Recorder)
        other.__dict__.update(self.__dict__)
        other.msrs, other.mode, other.pmu = msrs, mode, msrs.pmu
        return other

    def record(self, listener: Listener, branches: npt.NDArray[np.void], start: int,
               stop: int | None) -> int:
        """Retire a batch of branches; see `Processor.record`."""
        pmu, mode, at, n = self.pmu, self.mode, start, len(branches) if stop is None else stop
        if not 0 <= at <= n <= len(branches):
            raise ValueError(f"start, stop: {at}, {n} of {len(branches)} branches")
        lbr = self.msrs.lbr
        first, last, taken = 0, None, branches
        while True:
            armed = pmu.armed()
            if armed.logging or mode.in_tsx or mode.cs_base or not mode.long_mode:
                # The PMI handler may have changed what records contain of the rest.
                seen = armed, mode.in_tsx, mode.cs_base, mode.long_mode
                if seen != last:
                    first, last, taken = at, seen, self._translated(branches[at:n], armed)
            elif last:
                first, last, taken = 0, None, branches
            if armed.bank is None:
                lbr.record(taken[at - first:n - first])
                return n
            ended, overflowed = armed.bank.count(
                taken, pmu.pmc, pmu.fixed, at - first, n - first, lbr)
            at = first + ended
            ip = int(taken["to"][ended - 1]) if overflowed & pmu.pebs_enable else 0
            try:
                if overflowed and self._overflow(listener, overflowed, ip):
                    return at
            except Exception as error:
                error.add_note(f"raised by a listener after branch {at - 1}; branches[{at}:] "
                               "are not taken")
                raise
            if at == n:
                return n

    def branch(
        self, listener: Listener, cls: int, from_: int, to: int, cpl_from: int, cpl_to: int,
        flags: int, cycles: int, instructions: int, events: tuple[int, int, int, int],
    ) -> bool:
        """Retire one branch; see `Processor.branch`."""
        mode, pmu = self.mode, self.pmu
        if mode.in_tsx:
            flags |= BranchFlag.IN_TSX
        if mode.cs_base or not mode.long_mode:
            from_, to = self._shown(from_), self._shown(to)
        armed = pmu.armed()
        if armed.logging:
            one = np.array([(from_, to, cycles, instructions, cls, flags, cpl_from, cpl_to,
                             events)], dtype=BRANCH_DTYPE)
            first = self._with_events(one, armed)["events"][0]
            events = int(first[0]), int(first[1]), int(first[2]), int(first[3])
        self.msrs.lbr.record_one(
            from_, to, cls, cycles=cycles, instructions=instructions, flags=flags,
            cpl_from=cpl_from, cpl_to=cpl_to, events=events)
        if armed.bank is None:
            return False
        overflowed = armed.bank.add(pmu.pmc, pmu.fixed, cls, cpl_from, flags, True, instructions,
                                    cycles)
        return bool(overflowed) and self._overflow(listener, overflowed, to)

    def retire(self, listener: Listener, instructions: int, cycles: int, cpl: int, ip: int
               ) -> bool:
        """Count instructions and time without a branch; see `Processor.retire`."""
        pmu = self.pmu
        self.msrs.lbr.record_one(
            0, 0, BranchClass.NOT_TAKEN, cycles=cycles, instructions=instructions,
            cpl_from=cpl, cpl_to=cpl)
        bank = pmu.armed().bank
        if bank is None:
            return False
        overflowed = bank.add(pmu.pmc, pmu.fixed, BranchClass.NOT_TAKEN, cpl, 0, False,
                              instructions, cycles)
        return bool(overflowed) and self._overflow(listener, overflowed, ip)

    # What a record contains of a branch

    def _shown(self, address: int) -> int:
        """An address as records have it: effective on models that record those, 32 bits outside
        64-bit mode (SDM vol. 3, 17.4.8.1)."""
        if self._effective:
            address -= self.mode.cs_base
        return address & (_64_BITS if self.mode.long_mode else _32_BITS)

    def _translated(
        self, branches: npt.NDArray[np.void], armed: Armed
    ) -> npt.NDArray[np.void]:
        """A copy with what the processor's state adds."""
        mode, branches = self.mode, branches.copy()
        if mode.in_tsx:
            branches["flags"] |= np.uint8(BranchFlag.IN_TSX)
        if mode.cs_base or not mode.long_mode:
            base = mode.cs_base if self._effective else 0
            mask = _64_BITS if mode.long_mode else _32_BITS
            for name in ("from", "to"):
                branches[name] = (branches[name] - np.uint64(base)) & np.uint64(mask)
        return self._with_events(branches, armed)

    @staticmethod
    def _with_events(branches: npt.NDArray[np.void], armed: Armed) -> npt.NDArray[np.void]:
        """Fill in `events` of the counters that log and whose event the stream carries."""
        for bit, (table, need_, unit) in armed.logging:
            place = branches["class"].astype(np.uint32) | (branches["cpl_from"] > 0) * 16
            hit = (np.uint32(table) >> place) & 1
            hit &= (branches["flags"] & need_) == need_
            amount = (np.ones(len(branches), np.uint64), branches["instructions"],
                      branches["cycles"])[unit]
            branches["events"][:, bit] = np.minimum(hit * amount, 3)
        return branches

    # Overflow

    def _overflow(self, listener: Listener, overflowed: int, ip: int) -> bool:
        """Counters have overflowed with `ip` next: PEBS, status, PMI.  True: stop the batch."""
        pmu = self.pmu
        if overflowed & pmu.pebs_enable:
            overflowed = self._pebs(listener, overflowed, ip)
            if not overflowed:
                return False
        if self._has_status:
            pmu.status |= overflowed
        return bool(pmu.armed().interrupts & overflowed) and self.raise_pmi(listener)

    def _pebs(self, listener: Listener, overflowed: int, ip: int) -> int:
        """Hand out the PEBS records of counters that overflowed; the other counters."""
        for bit in range(overflowed.bit_length()):
            if overflowed & self.pmu.pebs_enable & 1 << bit:
                value = listener.deliver_pebs(bit, pebs.record(self.msrs, bit, ip))
                pebs.reload(self.msrs, bit, value)
                overflowed &= ~(1 << bit)
        return overflowed

    def raise_pmi(self, listener: Listener) -> bool:
        """Freeze as IA32_DEBUGCTL demands, then deliver the PMI.  True: stop the batch."""
        msrs, pmu = self.msrs, self.pmu
        if msrs.freeze(self._streamlined):
            msrs.set_status(pmu.status | STATUS_LBR_FRZ)
        if msrs.debugctl & DEBUGCTL_FREEZE_PERFMON_ON_PMI:
            if self._streamlined:
                msrs.set_status(pmu.status | STATUS_CTR_FRZ)
            else:
                pmu.global_ctrl = 0
                msrs.pmu_changed()
        return listener.deliver_pmi()
