"""The properties, each where it can be seen broken.

P1   no record of the host where a guest can read
P2   no record of another guest there
P3   no kernel record where only user branches were asked for
P4   no guest's record in a sample of an event that excludes guests, nor one that was not traced
P5   a control register reads as it was set, by the host after a VM exit and by a guest
P6   registers are not touched on behalf of a side that does not own them
P7   what is handed over is whole: no torn record, LER included
P1'  what a guest sees does not depend on the host, but for the exceptions the policy documents
P20  the registers have one owner, and it is here
P20b registers without an owner are empty and off
P21  no record is missing, or the view is marked in the way that the policy documents
P22  a request is served at the next safe point
P23  asking twice is asking once
"""

from libc.stdint cimport uint64_t

from lbrcore.lbr cimport LBR_LEGACY, lbr_entry
from pylbr.arbitration.invariants cimport TWO_OWNERS, broken_control, broken_owner
from pylbr.arbitration.microsteps cimport EXPOSED_RDMSR, EXPOSED_PEBS, EXPOSED_XSAVES, Cpu, Vcpu
from pylbr.arch.bits cimport DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport hw_peek
from pylbr.host.perf cimport EXCLUDE_GUEST, USER_ONLY
from pylbr.verify.world cimport (
    F_DB, F_HOST_FREEZE, F_VPMI, P1, P1N, P2, P20, P20B, P21, P3, P4, P5, P7, PROPERTIES, Ideal,
)

#: Names in the order of their bits.
NAMES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P1'", "P20", "P20b", "P21", "P22", "P23")

#: One line each, for tables and stories.
TITLES = {
    "P1": "a guest sees a record of the host",
    "P2": "a guest sees a record of another guest",
    "P3": "a kernel record where only user branches were asked for",
    "P4": "a host event sees a guest that it asked not to see",
    "P5": "a control register does not hold what its owner set",
    "P6": "registers are touched on behalf of a side that does not own them",
    "P7": "a hand-over is not whole",
    "P1'": "a guest can find out what the host does, beyond what is documented",
    "P20": "the registers have two owners, or one that is not here",
    "P20b": "registers without an owner are not empty",
    "P21": "records are missing and the view is not marked",
    "P22": "a request is not served at the next safe point",
    "P23": "asking twice is not asking once",
}
assert len(NAMES) == len(TITLES) == PROPERTIES


def names_of(bits: int) -> tuple:
    """Names of the properties whose bits are set."""
    return tuple(name for i, name in enumerate(NAMES) if bits >> i & 1)


cdef inline bint _same(const lbr_entry* a, const lbr_entry* b) noexcept nogil:
    return a.from_ == b.from_ and a.to == b.to and a.info == b.info


cdef inline int _owner(const lbr_entry* entry) noexcept nogil:
    """-1 for an empty entry, 0 the host, 1 + v a guest."""
    return <int> (entry.from_ >> 40) - 1


cdef inline bint _kernel(const lbr_entry* entry) noexcept nogil:
    return (entry.from_ >> 39) & 1


cdef inline bint _torn(const lbr_entry* entry) noexcept nogil:
    return entry.to != (~entry.from_ if entry.from_ else 0)


cdef uint32_t _compare(
    const Image* image, const Ideal* ideal, bint short_, bint flag, bint cut
) noexcept nogil:
    """P21: each record is the ideal one, or empty where the policy allows it."""
    cdef size_t i
    cdef bint missing = False
    for i in range(ideal.image.depth):
        if _same(&image.entry[i], &ideal.image.entry[i]):
            continue
        if not short_ or image.entry[i].from_:
            return 1 << P21
        missing = True
    return 1 << P21 if missing and flag and not cut else 0


cdef uint32_t check_exposure(
    World* w, Policy policy, int guest, const Image* image, bint cut, int exposure
) noexcept nogil:
    """What guest `guest` gets to see, or user space of it."""
    cdef const Ideal* ideal = &w.guest[guest]
    cdef lbr_entry entry, wanted
    cdef size_t i
    cdef uint32_t failed
    cdef int owner
    failed = _compare(image, ideal, policy.guest_short, policy.guest_flag, cut)
    if failed or (cut and not policy.guest_flag):
        failed |= 1 << P1N
    for i in range(ideal.image.depth + 1):
        if i == ideal.image.depth and (exposure == EXPOSED_RDMSR or exposure == EXPOSED_PEBS):
            break               # no policy here lets a guest read LER by RDMSR
        entry, wanted = image.ler, ideal.image.ler
        if i < ideal.image.depth:
            entry, wanted = image.entry[i], ideal.image.entry[i]
        owner = _owner(&entry)
        if owner == 0:
            failed |= 1 << P1
        elif owner > 0 and owner != 1 + guest:
            failed |= 1 << P2
        if _torn(&entry):
            failed |= 1 << P7
        if (owner == 1 + guest and _kernel(&entry) and ideal.user_only
                and not _same(&entry, &wanted)):
            failed |= 1 << P3
    if exposure == EXPOSED_PEBS:
        return failed           # the record has neither LER nor the control register
    if exposure != EXPOSED_RDMSR and not policy.legacy:
        if not _same(&image.ler, &ideal.image.ler) and not (
                policy.guest_short and not image.ler.from_):
            failed |= 1 << P7
    if image.ctl != ideal.image.ctl:
        failed |= 1 << P5 | 1 << P1N
    return failed


cdef uint32_t check_sample(World* w, Policy policy, int cpu) noexcept nogil:
    """What the PMI handler of `cpu` has just read."""
    cdef const Ideal* ideal = &w.host[cpu]
    cdef const Image* image = &w.system.seen.image
    cdef const Cpu* c = &w.system.cpu[cpu]
    cdef const lbr_entry* entry
    cdef size_t i
    cdef uint32_t failed = _compare(
        image, ideal, policy.host_short, policy.host_flag, w.system.seen.cut)
    for i in range(ideal.image.depth):
        entry = &image.entry[i]
        if _owner(entry) > 0 and (c.perf.flags & EXCLUDE_GUEST
                                  or not _same(entry, &ideal.image.entry[i])):
            failed |= 1 << P4
        if _torn(entry):
            failed |= 1 << P7
        if c.perf.flags & USER_ONLY and _kernel(entry):
            failed |= 1 << P3
    return failed


cdef uint32_t _check_debugctl(const Cpu* c, const Ideal* ideal) noexcept nogil:
    """P5 of a guest that runs: its IA32_DEBUGCTL."""
    cdef uint64_t wanted = DEBUGCTL_FREEZE_LBRS_ON_PMI if ideal.freeze else 0
    if c.hw.lbr.config.flavour == LBR_LEGACY:
        wanted |= DEBUGCTL_LBR if ideal.on else 0
    return 0 if c.hw.debugctl == wanted else 1 << P5


cdef uint32_t _check_frozen(
    const Cpu* c, const Vcpu* v, const Ideal* ideal, bint real
) noexcept nogil:
    """LBR_FRZ as a guest that runs reads it: the processor's (`real`) or the hypervisor's."""
    return 0 if (c.hw.lbr.frozen if real else v.frozen) == ideal.frozen else 1 << P5 | 1 << P1N


cdef uint32_t check_invariants(World* w, Policy policy, bint xsaves) noexcept nogil:
    """What holds at every micro-step, and what a guest could read now without an exit."""
    cdef uint32_t failed = 0
    cdef int cpu, guest, owner
    cdef Cpu* c
    cdef Vcpu* v
    cdef Image image
    for guest in range(w.system.guests):
        v = &w.system.vcpu[guest]
        if not v.level2 and v.vmcs12.debugctl & DEBUGCTL_LBR:
            failed |= 1 << P5   # L1 may look; bit 0 always reads 0 (spec 1.7)
    for cpu in range(w.system.cpus):
        c = &w.system.cpu[cpu]
        owner = broken_owner(c)
        if owner:
            failed |= 1 << (P20 if owner == TWO_OWNERS else P20B)
        if not c.guest:
            if c.irqs and broken_control(c):
                failed |= 1 << P5
            continue
        if c.frames:
            continue
        v = &w.system.vcpu[c.guest - 1]
        if w.system.features & (F_VPMI | F_DB):
            failed |= _check_debugctl(c, &w.guest[c.guest - 1])
        if w.system.features & F_HOST_FREEZE and not policy.freeze_clears_enable:
            failed |= _check_frozen(c, v, &w.guest[c.guest - 1], policy.mediated)
        hw_peek(&c.hw, &image)
        if v.passthrough:
            failed |= check_exposure(w, policy, c.guest - 1, &image, v.lost, EXPOSED_RDMSR)
        if xsaves and not v.xss_exit:
            failed |= check_exposure(w, policy, c.guest - 1, &image, v.lost, EXPOSED_XSAVES)
    return failed
