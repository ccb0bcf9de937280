"""The counters: what they are set to count, what they hold, what their overflow does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lbrcore import BranchFlag
from lbrcore.pmu import Bank
from pylbr.arch.bits import (
    EVTSEL_CMASK,
    EVTSEL_E,
    EVTSEL_EN,
    EVTSEL_EN_LBR_LOG,
    EVTSEL_IN_TX,
    EVTSEL_IN_TXCP,
    EVTSEL_INT,
    EVTSEL_INV,
    EVTSEL_OS,
    EVTSEL_USR,
    INUSE_PMI,
    STATUS_CTR_FRZ,
)
from pylbr.arch.features import CpuModel
from pylbr.arch.perf_events import FIXED_EVENTS, PerfEvent, event
from pylbr.cpu.saved.state import PmuSnapshot, check_register, is_number, need

__all__ = ["Armed", "FIXED", "PmuState", "STOPPED_BY_ENCLAVE", "STOPPED_BY_SMM"]

#: First bit of the fixed counters in the global registers.
FIXED = 32
#: Bits of `PmuState.stops`.
STOPPED_BY_SMM, STOPPED_BY_ENCLAVE = 1, 2


@dataclass(frozen=True, slots=True)
class Armed:
    """The counters that count now.

    Attributes
    ----------
    counters : tuple of int
        Their bits in the global registers.
    selectors : tuple of (table, need, unit)
        What each counts, as of ``lbrcore.pmu.Bank``.
    interrupts : int
        Bits of all counters whose overflow interrupts, those that do not count included.
    bank : Bank or None
        They compiled, if there are any.
    logging : tuple of (int, selector)
        Those whose counts go into IA32_LBR_x_INFO.
    """

    counters: tuple[int, ...]
    selectors: tuple[tuple[int, int, int], ...]
    logging: tuple[tuple[int, tuple[int, int, int]], ...]
    interrupts: int = 0
    bank: Bank | None = field(default=None, compare=False, repr=False)


def _selector(what: PerfEvent, user: bool, kernel: bool, need: int) -> tuple[int, int, int]:
    table = (what.classes if kernel else 0) | (what.classes << 16 if user else 0)
    if what.mispredicted:
        need |= BranchFlag.MISPRED
    return table, int(need), int(what.unit)


class PmuState:
    """Counters and their control.

    Attributes
    ----------
    pmc, fixed : list of int
        Counters, as wide as the model has them.
    evtsel : list of int
    fixed_ctrl, global_ctrl, status, pebs_enable : int
        The registers of those names; `status` is IA32_PERF_GLOBAL_STATUS.
    stops : int
        Why no counter counts: FREEZE_WHILE_SMM in SMM, or an opt-out enclave; 0: they count.
    """

    def __init__(self, model: CpuModel) -> None:
        self.model = model
        self.facts = model.pmu
        self.pmc_mask = (1 << self.facts.counter_width) - 1
        self.fixed_mask = (1 << self.facts.fixed_width) - 1
        self.reset()

    def reset(self) -> None:
        """Values after RESET (SDM vol. 3, table 9-1)."""
        self.pmc = [0] * self.facts.counters
        self.evtsel = [0] * self.facts.counters
        self.fixed = [0] * self.facts.fixed
        self.fixed_ctrl = self.status = self.pebs_enable = 0
        self.global_ctrl = (1 << self.facts.counters) - 1 if self.facts.version >= 2 else 0
        self.stops = 0
        self._armed: Armed | None = None

    def copy(self) -> PmuState:
        """An independent PMU with the same contents."""
        other = object.__new__(PmuState)
        other.__dict__.update(self.__dict__)
        other.pmc, other.evtsel = self.pmc.copy(), self.evtsel.copy()
        other.fixed = self.fixed.copy()
        return other

    def save(self) -> PmuSnapshot:
        """The registers as plain data."""
        return PmuSnapshot(
            tuple(self.pmc), tuple(self.evtsel), tuple(self.fixed), self.fixed_ctrl,
            self.global_ctrl, self.status, self.pebs_enable)

    def load(self, saved: PmuSnapshot) -> None:
        """Take over saved registers.

        Raises
        ------
        StateError
            For a value that the model cannot hold.
        """
        model, facts = self.model, self.facts
        for name, count, mask in (("pmc", facts.counters, self.pmc_mask),
                                  ("fixed", facts.fixed, self.fixed_mask)):
            values = getattr(saved, name)
            need(len(values) == count and all(is_number(v, mask) for v in values),
                 f"{name}: {model.name} has {count} counters up to {mask:#x}")
            setattr(self, name, list(values))
        need(len(saved.evtsel) == facts.counters, f"evtsel: {model.name} has {facts.counters}")
        amd = model.amd is not None
        prefix = "PERF_CTL" if amd else "IA32_PERFEVTSEL"
        for n, value in enumerate(saved.evtsel):
            check_register(model, f"{prefix}{n}", value)
        self.evtsel = list(saved.evtsel)
        for attribute, name in (
            ("fixed_ctrl", "IA32_FIXED_CTR_CTRL"),
            ("global_ctrl", "PERF_CNTR_GLOBAL_CTL" if amd else "IA32_PERF_GLOBAL_CTRL"),
            ("status", "PERF_CNTR_GLOBAL_STATUS" if amd else "IA32_PERF_GLOBAL_STATUS"),
            ("pebs_enable", "IA32_PEBS_ENABLE"),
        ):
            value = getattr(saved, attribute)
            if facts.arch_pebs and attribute == "pebs_enable":
                need(not value & ~facts.counter_mask, f"PEBS of a counter that {model.name} lacks")
            elif value:
                check_register(model, name, value)
            setattr(self, attribute, value)
        self.changed()

    def stop(self, cause: int, on: bool = True) -> None:
        """Set or clear a reason why no counter counts."""
        self.stops = self.stops | cause if on else self.stops & ~cause
        self.changed()

    def changed(self) -> None:
        """Work out again what counts: a control register has changed."""
        self._armed = None

    # What counts

    def armed(self) -> Armed:
        """The counters that count, with what each of them counts."""
        if self._armed is None:
            rows = list(self._rows())
            logging = self.logging()
            counters, selectors = tuple(bit for bit, _ in rows), tuple(row for _, row in rows)
            widths = [self.facts.counter_width if bit < FIXED else self.facts.fixed_width
                      for bit in counters]
            self._armed = Armed(
                counters, selectors,
                tuple((bit, row) for bit, row in rows if logging >> bit & 1),
                self._interrupts(), Bank(counters, selectors, widths) if rows else None,
            )
        return self._armed

    def _rows(self) -> Iterator[tuple[int, tuple[int, int, int]]]:
        if self.stops or self.status & STATUS_CTR_FRZ:
            return
        enabled = self.global_ctrl if self.facts.version >= 2 else -1
        for n, select in enumerate(self.evtsel):
            what = self.event_of(n)
            if what and enabled >> n & 1 and select & EVTSEL_EN:
                need = BranchFlag.IN_TSX if select & EVTSEL_IN_TX else 0
                row = _selector(what, bool(select & EVTSEL_USR), bool(select & EVTSEL_OS), need)
                if row[0]:
                    yield n, row
        for n in range(self.facts.fixed):
            control = self.fixed_ctrl >> 4 * n
            what = FIXED_EVENTS[n]
            if what and enabled >> (FIXED + n) & 1 and control & 3:
                yield FIXED + n, _selector(what, bool(control & 2), bool(control & 1), 0)

    def event_of(self, n: int) -> PerfEvent | None:
        """What general counter `n` is set to count, as far as a stream carries it."""
        select = self.evtsel[n]
        if select & (EVTSEL_E | EVTSEL_INV | EVTSEL_CMASK | EVTSEL_IN_TXCP):
            return None  # not carried, see pylbr.arch.choices
        if not self.model.intel and select >> 32 & 0xF:
            return None
        return event(self.facts.events, select & 0xFF, select >> 8 & 0xFF)

    def limits(self, armed: Armed) -> list[int]:
        """How much each armed counter may add before it has overflowed."""
        return [
            self.pmc_mask + 1 - self.pmc[bit] if bit < FIXED
            else self.fixed_mask + 1 - self.fixed[bit - FIXED]
            for bit in armed.counters
        ]

    def _interrupts(self) -> int:
        """Counters whose overflow interrupts, a bit each."""
        general = sum(1 << n for n, select in enumerate(self.evtsel) if select & EVTSEL_INT)
        return general | sum(1 << FIXED + n for n in range(self.facts.fixed)
                             if self.fixed_ctrl >> (4 * n + 3) & 1)

    def logging(self) -> int:
        """Counters whose events go into IA32_LBR_x_INFO (IA32_PERFEVTSELx[35]), a bit each."""
        if self.stops or self.status & STATUS_CTR_FRZ:
            return 0
        return sum(
            1 << n for n, select in enumerate(self.evtsel[:4])
            if select & EVTSEL_EN_LBR_LOG and select & EVTSEL_EN and self.global_ctrl >> n & 1
        )

    def in_use(self) -> int:
        """IA32_PERF_GLOBAL_INUSE (SDM vol. 4, 392H)."""
        value = pmi = 0
        for n, select in enumerate(self.evtsel):
            value |= (1 << n) if select & 0xFF else 0
            pmi |= select & EVTSEL_INT
        for n in range(self.facts.fixed):
            nibble = self.fixed_ctrl >> 4 * n & 0xF
            value |= (1 << FIXED + n) if nibble & 3 else 0
            pmi |= nibble & 8
        return value | (INUSE_PMI if pmi or self.pebs_enable else 0)
