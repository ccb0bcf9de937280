"""The slow, obvious twin of the facility: plain Python, a list that shifts.

Written to be compared with the manual line by line; the tests hold the compiled core equal to
it bit by bit.  It takes the same arguments and raises the same exceptions as ``lbrcore.LbrState``
and ``lbrcore.xsave`` for accesses that fault.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from lbrcore.choices import CHOICES
from lbrcore.config import MAX_DEPTH, Flavour, LbrConfig, Quirk
from lbrcore.dtypes import BranchClass
from lbrcore.errors import Fault

__all__ = ["ReferenceLbr", "ReferenceXsave"]

CHOICE = {name: value for name, (value, _) in CHOICES.items()}

#: IA32_LBR_CTL bit of each class (SDM vol. 3, table 20-3).
CTL_BIT = {
    BranchClass.COND: 16,
    BranchClass.NEAR_REL_JMP: 17,
    BranchClass.NEAR_IND_JMP: 18,
    BranchClass.NEAR_REL_CALL: 19,
    BranchClass.NEAR_IND_CALL: 20,
    BranchClass.NEAR_RET: 21,
}
#: MSR_LBR_SELECT bit that suppresses each class (SDM vol. 4, 1C8H).
SELECT_BIT = {
    BranchClass.COND: 2,
    BranchClass.NEAR_REL_CALL: 3,
    BranchClass.NEAR_IND_CALL: 4,
    BranchClass.NEAR_RET: 5,
    BranchClass.NEAR_IND_JMP: 6,
    BranchClass.NEAR_REL_JMP: 7,
}
OTHER_BRANCH_CTL, FAR_BRANCH_SELECT = 22, 8
CALLS = (BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL)
#: Class of jumps that a call or return is one of, as Nehalem's filters see it.
JMP_OF = {
    BranchClass.NEAR_IND_CALL: BranchClass.NEAR_IND_JMP,
    BranchClass.NEAR_RET: BranchClass.NEAR_IND_JMP,
    BranchClass.NEAR_REL_CALL: BranchClass.NEAR_REL_JMP,
}
LOADS_LER = (BranchClass.INTERRUPT, BranchClass.EXCEPTION, BranchClass.SOFT_INT)
NO_BRANCH = (BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL)
EMPTY = (0, 0, 0)
ALL_ONES = (1 << 64) - 1

Entry = tuple[int, int, int]


class ReferenceLbr:
    """One LBR facility, the slow way.

    Attributes
    ----------
    stack : list of (from, to, info)
        Architectural: newest first.  Legacy: by physical index, `tos` being the newest.
    """

    def __init__(self, config: LbrConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        self.depth = self.config.max_depth
        self.stack: list[Entry] = [EMPTY] * self.depth
        self.tos = 0
        self.ctl = 0
        self.enable = False
        self.frozen = False
        self.event_mask = self.config.event_counters
        self.raw_ler: Entry = EMPTY
        self.cycles: int | None = None
        self.events = [0, 0, 0, 0]
        self.xinuse = False

    # Control

    @property
    def legacy(self) -> bool:
        return self.config.flavour == Flavour.LEGACY

    @property
    def active(self) -> bool:
        enabled = self.enable if self.legacy else bool(self.ctl & 1)
        return enabled and not self.frozen

    @property
    def call_stack(self) -> bool:
        return bool(self.ctl >> (9 if self.legacy else 3) & 1)

    def _restart(self, was_active: bool) -> None:
        if self.active and not was_active and not CHOICE["RESTART_KEEPS_CYCLES"]:
            self.cycles, self.events = None, [0, 0, 0, 0]

    def write_ctl(self, value: int) -> None:
        if value & ~self.config.ctl_mask:
            raise Fault("ctl")
        was_active, self.ctl = self.active, value
        self._restart(was_active)

    def set_enable(self, enable: bool) -> None:
        was_active, self.enable = self.active, enable
        self._restart(was_active)

    def set_frozen(self, frozen: bool) -> None:
        was_active, self.frozen = self.active, frozen
        self._restart(was_active)

    def write_event_mask(self, mask: int) -> None:
        self.event_mask = mask
        self.events = [n if mask >> i & 1 else 0 for i, n in enumerate(self.events)]

    def write_depth(self, value: int) -> None:
        if value not in self.config.depths:
            raise Fault("depth")
        self.depth = value
        self.clear()
        if CHOICE["DEPTH_WRITE_CLEARS_LER"]:
            self.raw_ler = EMPTY

    def clear(self) -> None:
        self.stack = [EMPTY] * self.depth

    def write_tos(self, tos: int) -> None:
        if tos >= self.depth:
            raise Fault("tos")
        self.tos = tos

    # Filters

    def class_passes(self, cls: BranchClass) -> bool:
        """The class filter: bits include (architectural) or suppress (legacy)."""
        if cls in NO_BRANCH:
            return False
        if self.legacy:
            if self.ctl >> SELECT_BIT.get(cls, FAR_BRANCH_SELECT) & 1:
                return False
            kin = JMP_OF.get(cls) if self.config.quirks & Quirk.JMPS_INCLUDE_CALLS else None
            return kin is None or self.class_passes(kin)
        if not self.config.ctl_mask & 0x7F0000:
            return True
        return bool(self.ctl >> CTL_BIT.get(cls, OTHER_BRANCH_CTL) & 1)

    def ring_passes(self, cpl: int) -> bool:
        """The CPL filter for one privilege level."""
        if self.legacy:
            return not self.ctl >> (0 if cpl == 0 else 1) & 1
        if not self.config.ctl_mask & 0x6:
            return True
        return bool(self.ctl >> (1 if cpl == 0 else 2) & 1)

    # Recording

    def record(self, branches: Iterable) -> None:
        """Record branches given as rows of BRANCH_DTYPE, oldest first."""
        for b in branches:
            self.record_one(
                int(b["from"]), int(b["to"]), int(b["class"]), cycles=int(b["cycles"]),
                flags=int(b["flags"]), cpl_from=int(b["cpl_from"]), cpl_to=int(b["cpl_to"]),
                events=tuple(int(n) for n in b["events"]),
            )

    def record_one(
        self, from_: int, to: int, cls: int, *, cycles: int = 0, flags: int = 0,
        cpl_from: int = 3, cpl_to: int = 3, events: tuple[int, ...] = (0, 0, 0, 0),
    ) -> None:
        kind = BranchClass(cls)
        if not self.active:
            return
        if kind in LOADS_LER:
            self._load_ler()
        if self.cycles is not None:
            self.cycles = min(self.cycles + cycles, 0xFFFF)
        for i in range(4):
            if self.event_mask >> i & 1:
                self.events[i] = min(self.events[i] + events[i], 3)
        if not (self.class_passes(kind) and self.ring_passes(cpl_to)):
            return
        if self.call_stack and kind == BranchClass.NEAR_RET:
            self._pop()
            if CHOICE["POP_RESTARTS_CYCLES"] and self.cycles is not None:
                self.cycles = 0
            return
        if self.call_stack and kind not in CALLS and not CHOICE["CALL_STACK_RECORDS_OTHERS"]:
            return
        if not self.legacy and not self.ring_passes(cpl_from):
            from_ = ALL_ONES
        self._push((from_, to, self._info(kind, flags)))
        self.cycles = 0 if self.config.info_mask & 0xFFFF else None
        self.events = [0, 0, 0, 0]

    def _info(self, kind: BranchClass, flags: int) -> int:
        br_type = kind if kind < 8 else CHOICE["OTHER_BRANCH_TYPE"]
        info = flags << 61 | br_type << 56 | kind << 48
        if self.cycles is not None:
            info |= 1 << 60 | self.cycles
        if self.config.event_counters:
            for i in range(4):
                info |= self.events[i] << (32 + 2 * i)
        return info & self.config.info_mask

    def _push(self, entry: Entry) -> None:
        if self.legacy:
            self.tos = (self.tos + 1) % self.depth
            self.stack[self.tos] = entry
        else:
            self.stack = [entry, *self.stack[:-1]]

    def _pop(self) -> None:
        if self.legacy:
            self.stack[self.tos] = EMPTY
            self.tos = (self.tos - 1) % self.depth
        else:
            self.stack = [*self.stack[1:], EMPTY]

    def _load_ler(self) -> None:
        from_, to, info = self.stack[self._place(0)]
        if from_ or to or CHOICE["EMPTY_STACK_CLEARS_LER"]:
            self.raw_ler = (from_, to, info & 0xEF << 56)

    # Records

    def _place(self, i: int) -> int:
        return (self.tos - i) % self.depth if self.legacy else i

    def canonical(self, address: int) -> int:
        """Address with the bits above MAXLINADDR-1 made copies of that bit."""
        width = self.config.linear_width
        address &= (1 << width) - 1
        return (address - (1 << width)) & ALL_ONES if address >> (width - 1) else address

    def _shown(self, entry: Entry) -> Entry:
        return self.canonical(entry[0]), self.canonical(entry[1]), entry[2]

    def read_entry(self, i: int) -> Entry:
        if i >= self.depth:
            raise Fault("i")
        return self._shown(self.stack[self._place(i)])

    def write_entry(self, i: int, from_: int, to: int, info: int) -> None:
        if i >= self.depth:
            raise Fault("i")
        self.stack[self._place(i)] = (from_, to, info)

    def records(self) -> list[Entry]:
        return [self.read_entry(i) for i in range(self.depth)]

    @property
    def ler(self) -> Entry:
        return self._shown(self.raw_ler)


class ReferenceXsave:
    """XSAVES and XRSTORS of component 15, the slow way (SDM vol. 1, 13.5.12 to 13.12)."""

    def __init__(self, lbr: ReferenceLbr) -> None:
        self.lbr = lbr

    def initial(self) -> bool:
        lbr = self.lbr
        registers = [lbr.ctl, *lbr.raw_ler, *(word for entry in lbr.stack for word in entry)]
        return not lbr.xinuse and not any(registers)

    def component(self) -> bytes:
        words = [self.lbr.ctl, self.lbr.depth, *self.lbr.ler]
        for entry in self.lbr.records():
            words += entry
        return struct.pack(f"<{len(words)}Q", *words)

    def restore_component(self, data: bytes) -> None:
        lbr = self.lbr
        ctl, depth, *ler = struct.unpack_from("<5Q", data)
        needed = lbr.config.max_depth.bit_length()
        if ctl & ~lbr.config.ctl_mask or any(data[808:]):
            raise Fault("component")
        if depth != lbr.depth and depth >> needed:
            raise Fault("component")
        lbr.raw_ler = (ler[0], ler[1], ler[2])
        lbr.clear()
        if depth == lbr.depth:
            for i in range(depth):
                lbr.stack[i] = struct.unpack_from("<3Q", data, 40 + 24 * i)
            lbr.xinuse = True
        self._load_ctl(ctl)

    def _load_ctl(self, ctl: int) -> None:
        self.lbr.ctl = ctl
        self.lbr._restart(False)

    def initialise(self) -> None:
        self.lbr.raw_ler = EMPTY
        self.lbr.clear()
        self.lbr.xinuse = False
        self._load_ctl(0)

    @staticmethod
    def offset(xcomp_bv: int, sizes: dict[int, int], aligned: int) -> int:
        at = 576
        for i in range(2, 15):
            if xcomp_bv >> i & 1:
                at = (at + 63) // 64 * 64 if aligned >> i & 1 else at
                at += sizes[i]
        return (at + 63) // 64 * 64 if aligned >> 15 & 1 else at

    def xsaves(
        self, area: bytearray, rfbm: int, *, xinuse: int = 0, sizes: dict[int, int] | None = None,
        aligned: int = 0,
    ) -> None:
        in_use = xinuse & ~(1 << 15)
        if rfbm >> 15 & 1 and not self.initial():
            in_use |= 1 << 15
            at = self.offset(rfbm, sizes or {}, aligned)
            data = self.component()
            area[at:at + len(data)] = data
        struct.pack_into("<2Q", area, 512, rfbm & in_use, rfbm | 1 << 63)

    def xrstors(
        self, area: bytes, rfbm: int, *, supported: int, sizes: dict[int, int] | None = None,
        aligned: int = 0,
    ) -> None:
        xstate_bv, xcomp_bv = struct.unpack_from("<2Q", area, 512)
        if not xcomp_bv >> 63 or xcomp_bv & ~(1 << 63) & ~supported:
            raise Fault("XCOMP_BV")
        if xstate_bv >> 63 or xstate_bv & ~xcomp_bv or any(area[528:576]):
            raise Fault("header")
        if not rfbm & supported & 1 << 15:
            return
        if not xstate_bv >> 15 & 1:
            self.initialise()
            return
        at = self.offset(xcomp_bv, sizes or {}, aligned)
        size = (sizes or {}).get(15, 40 + 24 * MAX_DEPTH)
        self.restore_component(bytes(area[at:at + size]))
