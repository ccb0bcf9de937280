"""What holds of a CPU at every micro-step, whatever is recorded: one owner, empty registers without
one, control registers as perf put them in.  The search and a machine's host ask the same."""

from libc.stdint cimport uint64_t

from lbrcore.lbr cimport LBR_LEGACY
from pylbr.arbitration.microsteps cimport OWNER_GUEST, OWNER_NONE, Cpu
from pylbr.arch.bits cimport DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport Image, hw_peek, image_empty

cdef enum Broken:
    TWO_OWNERS = 1              # P20
    NOT_EMPTY = 2               # P20b
    NOT_AS_SET = 4              # P5


cdef inline int broken_owner(const Cpu* c) noexcept nogil:
    """Registers have one owner, and it is here; those without one are empty and off."""
    cdef Image image
    if c.owner >= OWNER_GUEST:
        if c.perf.granted or c.task != 1 + c.owner - OWNER_GUEST:
            return TWO_OWNERS
    elif c.owner == OWNER_NONE:
        if c.perf.granted:
            return TWO_OWNERS
        hw_peek(&c.hw, &image)
        if not image_empty(&image) or image.ler.from_ or c.hw.lbr.active:
            return NOT_EMPTY
    return 0


cdef inline int broken_control(const Cpu* c) noexcept nogil:
    """Outside guest mode and with interrupts on, what perf put in is in."""
    cdef uint64_t wanted = c.perf.programmed if c.perf.granted else 0
    if c.hw.lbr.frozen and not c.pmi:
        return NOT_AS_SET
    if c.perf.freezes and (c.hw.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI != 0) != c.perf.freeze:
        return NOT_AS_SET
    if c.hw.lbr.config.flavour == LBR_LEGACY:
        return 0 if (c.hw.debugctl & DEBUGCTL_LBR) == (wanted & DEBUGCTL_LBR) else NOT_AS_SET
    return 0 if c.hw.lbr.ctl == wanted else NOT_AS_SET
