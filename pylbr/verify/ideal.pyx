"""What each owner must see: the history of a facility that it never had to share.

Every branch carries a tag, ``FROM = owner << 40 | kernel << 39 | serial``.  The models never
look at a tag.
"""

from libc.string cimport memmove, memset

from lbrcore.lbr cimport lbr_entry
from pylbr.arbitration.microsteps cimport (
    GUEST_ACK, GUEST_DB, GUEST_DEPTH, GUEST_DISABLE, GUEST_ENABLE, GUEST_FREEZE, GUEST_PMI,
    GUEST_RESET, GUEST_RSM, GUEST_SMI, GUEST_USER_FILTER, GUEST_VMCALL, GUEST_VMLAUNCH,
    GUEST_VMLAUNCH_CONTROLS, Cpu, Policy, guest_control,
)
from pylbr.arch.bits cimport CTL_LBREN, CTL_OS, SELECT_CPL_EQ_0
from pylbr.host.perf cimport CALL_STACK, USER_ONLY
from pylbr.kvm.vcpu cimport LEVEL1, LEVEL2, LEVEL2_CONTROLS
from pylbr.verify.world cimport FAULT, JUMP, KERNEL, RETURN


cdef lbr_entry record_of(World* w, int owner, int flags) noexcept nogil:
    """A new record of `owner`: 0 the host, 1 + v a guest."""
    cdef lbr_entry entry
    entry.from_ = (<uint64_t> (owner + 1) << 40 | <uint64_t> (flags & KERNEL) << 39
                   | w.serial[owner])
    entry.to = ~entry.from_
    entry.info = 0
    w.serial[owner] += 1
    return entry


cdef void push(
    Ideal* ideal, const lbr_entry* entry, int flags, bint classes
) noexcept nogil:
    cdef size_t depth = ideal.image.depth
    if not ideal.on or ideal.frozen:
        return
    if flags & FAULT and ideal.image.entry[0].from_:
        ideal.image.ler = ideal.image.entry[0]
    if flags & KERNEL and ideal.user_only or not classes:
        return
    if ideal.call_stack and flags & RETURN:
        memmove(&ideal.image.entry[0], &ideal.image.entry[1], (depth - 1) * sizeof(lbr_entry))
        memset(&ideal.image.entry[depth - 1], 0, sizeof(lbr_entry))
    elif not (ideal.call_stack and flags & (JUMP | FAULT)):
        memmove(&ideal.image.entry[1], &ideal.image.entry[0], (depth - 1) * sizeof(lbr_entry))
        ideal.image.entry[0] = entry[0]


cdef void _clear(Ideal* ideal) noexcept nogil:
    memset(&ideal.image.entry[0], 0, sizeof(ideal.image.entry))


cdef void written(Ideal* ideal, const lbr_entry* entry, bint whole) noexcept nogil:
    """The guest writes record 0; by XRSTORS, with nothing in the others and LER."""
    if whole:
        _clear(ideal)
        memset(&ideal.image.ler, 0, sizeof(lbr_entry))
    ideal.image.entry[0] = entry[0]


cdef void _reset(Ideal* ideal) noexcept nogil:
    cdef uint64_t depth = ideal.image.depth
    memset(ideal, 0, sizeof(Ideal))
    ideal.image.depth = depth


cdef void _nested(Ideal* ideal, int instruction, bint legacy) noexcept nogil:
    """A VM entry of L1 that has not failed, or an exit of L2 to it (`pylbr.kvm.nested`)."""
    cdef uint64_t control = ideal.on | ideal.freeze << 1 if legacy else ideal.image.ctl
    if instruction == GUEST_VMCALL:
        if ideal.level2 == LEVEL2_CONTROLS or not legacy:
            ideal.vmcs12 = control
        if legacy or ideal.level2 == LEVEL2_CONTROLS:
            control = 0
        ideal.level2 = LEVEL1
        ideal.freeze = 0
    elif instruction == GUEST_VMLAUNCH:
        ideal.level2 = LEVEL2
    else:
        ideal.level2 = LEVEL2_CONTROLS
        control = ideal.vmcs12
    if legacy:
        ideal.on = control & 1
        ideal.freeze = control >> 1
    else:
        ideal.image.ctl = control


cdef void _pmi(Ideal* ideal, Policy policy) noexcept nogil:
    """One of the guest's counters overflows (spec 1.6, 7)."""
    if not ideal.freeze:
        return
    if not policy.freeze_clears_enable:
        ideal.frozen = 1
    elif policy.legacy:
        ideal.on = 0
    else:
        ideal.image.ctl &= ~<uint64_t> CTL_LBREN


cdef void retire(World* w, Policy policy) noexcept nogil:
    """A guest's instruction has had its effect; its own facility would have done this."""
    cdef bint legacy = policy.legacy
    cdef Ideal* ideal = &w.guest[w.system.seen.guest - 1]
    cdef int instruction = w.system.seen.instruction
    cdef bint level2 = w.system.vcpu[w.system.seen.guest - 1].level2
    cdef uint64_t* ctl = &ideal.image.ctl
    if instruction == GUEST_DEPTH:
        _clear(ideal)
    elif instruction == GUEST_SMI:
        ideal.smm_on = 1 + ideal.on
        ctl[0] &= ~<uint64_t> CTL_LBREN
    elif instruction == GUEST_RSM:
        ctl[0] |= ideal.smm_on == 2
        ideal.smm_on = 0
    elif instruction == GUEST_DB and legacy:
        ideal.on = 0            # IA32_DEBUGCTL.LBR (spec 3.4)
    elif instruction == GUEST_DB:
        ctl[0] &= ~<uint64_t> CTL_LBREN
    elif (instruction == GUEST_ENABLE or instruction == GUEST_DISABLE
          or instruction == GUEST_USER_FILTER):
        ctl[0] = guest_control(instruction, ctl[0], legacy)
        if legacy and instruction != GUEST_USER_FILTER:
            ideal.on = instruction == GUEST_ENABLE
    elif instruction == GUEST_RESET:
        _reset(ideal)
    elif instruction == GUEST_FREEZE:
        ideal.freeze = 1
    elif instruction == GUEST_ACK:
        ideal.frozen = 0
    elif instruction == GUEST_PMI:
        _pmi(ideal, policy)
    elif (instruction == GUEST_VMCALL or level2 and (
            instruction == GUEST_VMLAUNCH or instruction == GUEST_VMLAUNCH_CONTROLS)):
        _nested(ideal, instruction, legacy)
    if legacy:
        ideal.user_only = (ctl[0] & SELECT_CPL_EQ_0) != 0
    else:
        ideal.on = ctl[0] & CTL_LBREN
        ideal.user_only = ideal.on and not ctl[0] & CTL_OS


cdef Ideal* _kept(World* w, int cpu) noexcept nogil:
    """What is kept of the window on the present task."""
    cdef int task = w.system.cpu[cpu].task
    return &w.kept[task - 1] if task else &w.kept_host[cpu]


cdef void keep_window(World* w, int cpu) noexcept nogil:
    """The task that runs is about to leave: call-stack events keep their window."""
    cdef Cpu* c = &w.system.cpu[cpu]
    if c.perf.flags & CALL_STACK:
        _kept(w, cpu)[0] = w.host[cpu]
    else:
        memset(_kept(w, cpu), 0, sizeof(Ideal))


cdef void host_window(World* w, int cpu, int task, int hosts, int filter) noexcept nogil:
    """The host's window begins again with the first event and with another task."""
    cdef Cpu* c = &w.system.cpu[cpu]
    cdef Ideal* ideal = &w.host[cpu]
    if c.perf.hosts and (not hosts or c.task != task or filter != c.perf.flags & ASKED):
        _clear(ideal)
    if c.task != task:
        if c.perf.flags & CALL_STACK and _kept(w, cpu).on:
            ideal.image = _kept(w, cpu).image
        memset(_kept(w, cpu), 0, sizeof(Ideal))
    if not c.perf.hosts:
        memset(ideal, 0, sizeof(Ideal))
        ideal.image.depth = w.system.host_depth
    ideal.on = c.perf.hosts != 0
    ideal.user_only = (c.perf.flags & USER_ONLY) != 0
    ideal.call_stack = (c.perf.flags & CALL_STACK) != 0
