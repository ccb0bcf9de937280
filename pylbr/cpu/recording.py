"""Branches on their way through the counters into the facility, and the PMI they cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from lbrcore import BranchClass, BranchFlag
from pylbr.arch import choices
from pylbr.cpu import pebs
from pylbr.cpu.base import Base
from pylbr.cpu.facility import effective
from pylbr.cpu.pmu import CTR_FRZ, LBR_FRZ, OVF_BUF, Armed
from pylbr.errors import UnsupportedFeature

if TYPE_CHECKING:
    from pylbr.cpu.processor import Processor

__all__ = ["Recording"]

DEBUGCTL_LBR, FREEZE_LBRS, FREEZE_PERFMON = 1 << 0, 1 << 11, 1 << 12


class Recording(Base):
    """The record path of `Processor`."""

    def record(self, branches: npt.NDArray[np.void], start: int = 0,
               stop: int | None = None) -> int:
        """Retire a batch of branches: count, record, raise PMIs where they fall.

        Parameters
        ----------
        branches : array of ``lbrcore.BRANCH_DTYPE``, shape (n,), oldest first
        start, stop : int
            Which of them; `stop` is n if left out.

        Returns
        -------
        int
            Where it ended: `stop`, or less if ``events.pmi`` asked to stop; the caller goes on
            with the branch of that index.

        Notes
        -----
        A counter that overflows does so at the exact branch.  That branch is recorded, then
        the LBRs freeze if IA32_DEBUGCTL says so, then the PMI is told.  What a listener raises
        ends the batch there; a note on the exception says which branches are taken.

        Raises
        ------
        TypeError, ValueError
            As ``lbrcore.LbrState.record``.
        """
        pmu, at, n = self.pmu, start, len(branches) if stop is None else stop
        if not 0 <= at <= n <= len(branches):
            raise ValueError(f"start, stop: {at}, {n} of {len(branches)} branches")
        first, last, taken = 0, None, branches
        while True:
            armed = pmu.armed()
            if armed.logging or self.in_tsx or self.cs_base or not self.long_mode:
                # The PMI handler may have changed what records hold of the rest.
                seen = armed, self.in_tsx, self.cs_base, self.long_mode
                if seen != last:
                    first, last, taken = at, seen, self._translated(branches[at:n], armed)
            elif last:
                first, last, taken = 0, None, branches
            if armed.bank is None:
                self.lbr.record(taken[at - first:n - first])
                return n
            ended, overflowed = armed.bank.count(
                taken, pmu.pmc, pmu.fixed, at - first, n - first, self.lbr)
            at = first + ended
            try:
                if overflowed & pmu.pebs_enable:
                    overflowed = self._pebs(overflowed, int(taken["to"][ended - 1]))
                if overflowed and self._overflow(overflowed):
                    return at
            except Exception as error:
                error.add_note(f"raised by a listener behind branch {at - 1}; branches[{at}:] "
                               "are not taken")
                raise
            if at == n:
                return n

    def branch(
        self, cls: int, from_: int, to: int, *, cpl_from: int = 3, cpl_to: int = 3,
        flags: int = 0, cycles: int = 0, instructions: int = 1,
        events: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> bool:
        """Retire one branch; arguments as the fields of ``lbrcore.BRANCH_DTYPE``.

        Returns
        -------
        bool
            ``events.pmi`` asked to stop.
        """
        if self.in_tsx:
            flags |= BranchFlag.IN_TSX
        if self.cs_base or not self.long_mode:
            from_, to = self._shown(from_), self._shown(to)
        if self.pmu.armed().logging:
            one = pebs.one_branch(cls, from_, to, cpl_from, cpl_to, flags, cycles,
                                  instructions, events)
            first = self._with_events(one)["events"][0]
            events = int(first[0]), int(first[1]), int(first[2]), int(first[3])
        self.lbr.record_one(
            from_, to, cls, cycles=cycles, instructions=instructions, flags=flags,
            cpl_from=cpl_from, cpl_to=cpl_to, events=events)
        bank = self.pmu.armed().bank
        return bank is not None and self._added(
            bank.add(self.pmu.pmc, self.pmu.fixed, cls, cpl_from, flags, True, instructions,
                     cycles), to)

    def retire(
        self, instructions: int, *, cycles: int = 0, cpl: int = 3, ip: int = 0,
    ) -> bool:
        """Count instructions, and time that passes, without a branch.

        The branch that follows leaves them out.

        Parameters
        ----------
        instructions, cycles : int
            0 to 2**32 - 1.
        cpl : int
        ip : int
            Linear address of the instruction that runs next.

        Returns
        -------
        bool
            ``events.pmi`` asked to stop.
        """
        self.lbr.record_one(0, 0, BranchClass.NOT_TAKEN, cycles=cycles, instructions=instructions,
                            cpl_from=cpl, cpl_to=cpl)
        bank = self.pmu.armed().bank
        return bank is not None and self._added(
            bank.add(self.pmu.pmc, self.pmu.fixed, BranchClass.NOT_TAKEN, cpl, 0, False,
                     instructions, cycles), ip)

    def _added(self, overflowed: int, ip: int) -> bool:
        """Deal with the counters that overflowed, if any, with `ip` next."""
        if overflowed & self.pmu.pebs_enable:
            overflowed = self._pebs(overflowed, ip)
        return bool(overflowed) and self._overflow(overflowed)

    # What a record holds of a branch

    def _shown(self, address: int) -> int:
        """An address as records have it: effective if the model says so, 32 bits outside
        64-bit mode (SDM vol. 3, 17.4.8.1)."""
        if effective(self.model):
            address -= self.cs_base
        return address & (0xFFFFFFFFFFFFFFFF if self.long_mode else 0xFFFFFFFF)

    def _translated(
        self, branches: npt.NDArray[np.void], armed: Armed
    ) -> npt.NDArray[np.void]:
        """A copy with what the processor's state adds."""
        branches = branches.copy()
        if self.in_tsx:
            branches["flags"] |= np.uint8(BranchFlag.IN_TSX)
        if self.cs_base or not self.long_mode:
            base = self.cs_base if effective(self.model) else 0
            mask = 0xFFFFFFFFFFFFFFFF if self.long_mode else 0xFFFFFFFF
            for name in ("from", "to"):
                branches[name] = (branches[name] - np.uint64(base)) & np.uint64(mask)
        if armed.logging:
            branches = self._with_events(branches)
        return branches

    def _with_events(self, branches: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Fill in `events` of the counters that log and whose event the stream carries."""
        for bit, (table, need, unit) in self.pmu.armed().logging:
            place = branches["class"].astype(np.uint32) | (branches["cpl_from"] > 0) * 16
            hit = (np.uint32(table) >> place) & 1
            hit &= (branches["flags"] & need) == need
            amount = (np.ones(len(branches), np.uint64), branches["instructions"],
                      branches["cycles"])[unit]
            branches["events"][:, bit] = np.minimum(hit * amount, 3)
        return branches

    # Overflow

    def _overflow(self, overflowed: int) -> bool:
        """Counters have overflowed: status, PMI.  True: stop the batch."""
        pmu = self.pmu
        if self._has_status:
            pmu.status |= overflowed
        return bool(pmu.armed().interrupts & overflowed) and self.raise_pmi()

    def _pebs(self, overflowed: int, ip: int) -> int:
        """Write the PEBS records of counters that overflowed with `ip` next; the others."""
        for bit in range(overflowed.bit_length()):
            if overflowed & self.pmu.pebs_enable & 1 << bit:
                pebs.write_record(cast("Processor", self), bit, ip)
                overflowed &= ~(1 << bit)
        return overflowed

    def pebs_threshold(self) -> bool:
        """The PEBS buffer has reached its threshold: OvfBuf and a PMI."""
        if not self.model.pmu.pebs_format:
            raise UnsupportedFeature(f"{self.model.name} has no PEBS")
        self.set_status(self.pmu.status | OVF_BUF)
        return self.raise_pmi()

    def raise_pmi(self) -> bool:
        """Freeze as IA32_DEBUGCTL demands, then tell of the PMI.  True: stop the batch."""
        if self.debugctl & FREEZE_LBRS:
            if self._streamlined:
                self.set_status(self.pmu.status | LBR_FRZ)
            else:
                self._stop_lbrs()
        if self.debugctl & FREEZE_PERFMON:
            if self._streamlined:
                self.set_status(self.pmu.status | CTR_FRZ)
            else:
                self.pmu.global_ctrl = 0
                self.pmu_changed()
        return bool(self.events.pmi(self))  # type: ignore[arg-type]

    def _stop_lbrs(self) -> None:
        """The legacy freeze."""
        if self.model.legacy:
            self.debugctl &= ~DEBUGCTL_LBR
            self.sync()
        elif self.model.arch and choices.FREEZE_BELOW_V4_CLEARS_LBREN:
            self.lbr.ctl &= ~1

