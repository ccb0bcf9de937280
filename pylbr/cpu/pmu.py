"""The counters: what they are set to count, what they hold, what their overflow does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lbrcore import BranchFlag
from lbrcore.pmu import Bank
from pylbr.arch.features import CpuModel
from pylbr.arch.perf_events import FIXED_EVENTS, PerfEvent, event

__all__ = ["Armed", "CTR_FRZ", "FIXED", "LBR_FRZ", "PmuState"]

#: Bits of IA32_PERF_GLOBAL_STATUS (SDM vol. 4, 38EH).
LBR_FRZ, CTR_FRZ, ASCI, OVF_BUF = 1 << 58, 1 << 59, 1 << 60, 1 << 62
#: First bit of the fixed counters in the global registers.
FIXED = 32

EVTSEL_USR, EVTSEL_OS, EVTSEL_EDGE, EVTSEL_INT = 1 << 16, 1 << 17, 1 << 18, 1 << 20
EVTSEL_EN, EVTSEL_INV, EVTSEL_CMASK = 1 << 22, 1 << 23, 0xFF << 24
EVTSEL_IN_TX, EVTSEL_IN_TXCP, EVTSEL_LBR_LOG = 1 << 32, 1 << 33, 1 << 35


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
        Counters, as wide as the model says.
    evtsel : list of int
    fixed_ctrl, global_ctrl, status, pebs_enable : int
        The registers of those names; `status` is IA32_PERF_GLOBAL_STATUS.
    stopped : bool
        No counter counts: FREEZE_WHILE_SMM in SMM, or an opt-out enclave.
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
        self.stopped = False
        self._armed: Armed | None = None

    def copy(self) -> PmuState:
        """An independent PMU with the same contents."""
        other = object.__new__(PmuState)
        other.__dict__.update(self.__dict__)
        other.pmc, other.evtsel = self.pmc.copy(), self.evtsel.copy()
        other.fixed = self.fixed.copy()
        return other

    def changed(self) -> None:
        """A control register has changed: what counts is worked out anew."""
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
        if self.stopped or self.status & CTR_FRZ:
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
        if select & (EVTSEL_EDGE | EVTSEL_INV | EVTSEL_CMASK | EVTSEL_IN_TXCP):
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
        if self.stopped or self.status & CTR_FRZ:
            return 0
        return sum(
            1 << n for n, select in enumerate(self.evtsel[:4])
            if select & EVTSEL_LBR_LOG and select & EVTSEL_EN and self.global_ctrl >> n & 1
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
        return value | ((1 << 63) if pmi or self.pebs_enable else 0)
