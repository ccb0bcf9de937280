"""Host perf: which LBR events are scheduled, and what perf writes to enable them.

Facts: spec 5.1, 5.2, 5.6, 5.7.  Scheduling order: CPU-pinned, task-pinned, CPU-flexible,
task-flexible.  All LBR events of a CPU share one filter; one that asks for another does not
get on, and if pinned goes to ERROR until it is enabled again.  Once one of a context does not get
on, none after it in its turn is tried: pinned ones go to ERROR with it (6.1: merge_sched_in,
ecore.c:3828-3832).
"""

from lbrcore.lbr cimport LBR_ARCHITECTURAL

from pylbr.arch.bits cimport DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR, SELECT_CPL_EQ_0
from pylbr.cpu.hardware cimport (
    CTL_ANY, CTL_ANY_USR, CTL_STACK_USR, SELECT_STACK_USR, hw_set_ctl, hw_set_debugctl,
)

cdef enum:
    FILTER = USER_ONLY | CALL_STACK  # of an event, in the register that all of them share


cdef Event* perf_open(PerfContext* context, uint8_t flags) noexcept nogil:
    """Put a new event into a free slot; NULL if there is none."""
    cdef int i
    for i in range(EVENT_SLOTS):
        if context.event[i].state == EVENT_NONE:
            context.event[i].state = EVENT_INACTIVE
            context.event[i].flags = flags
            context.event[i].ran = 0
            return &context.event[i]
    return NULL


cdef void perf_close(Event* event) noexcept nogil:
    event.state = EVENT_NONE
    event.flags = event.ran = 0


cdef bint perf_needs_rotation(const PerfContext* context) noexcept nogil:
    """Flexible events compete: one of them is not scheduled."""
    cdef int i, flexible = 0, waiting = 0
    for i in range(EVENT_SLOTS):
        if not context.event[i].flags & PINNED:
            flexible += (context.event[i].state == EVENT_ACTIVE
                         or context.event[i].state == EVENT_INACTIVE)
            waiting += context.event[i].state == EVENT_INACTIVE
    return flexible > 1 and waiting


cdef void perf_rotate(PerfContext* context) noexcept nogil:
    """rotate_ctx: the first *active* flexible event, or the first if none is, goes to the end."""
    cdef Event first = context.event[0]
    cdef int i
    if not perf_needs_rotation(context) or (
            first.state != EVENT_ACTIVE
            and context.event[EVENT_SLOTS - 1].state == EVENT_ACTIVE):
        return
    for i in range(1, EVENT_SLOTS):
        context.event[i - 1] = context.event[i]
    context.event[EVENT_SLOTS - 1] = first


cdef bint perf_is_guest_event(const Event* event) noexcept nogil:
    return (event.flags & VLBR) != 0


cdef bint _place(PerfCpu* cpu, Event* event, int* filter, int rules) noexcept nogil:
    """Try to schedule one event (x86_schedule_events with the constraints of spec 5.6)."""
    cdef bint guest = perf_is_guest_event(event)
    cdef int wanted = event.flags & FILTER
    cdef bint shared = not guest or rules & FILTER_VLBR
    cdef bint fits
    if rules & FILTER_EXCLUSION:
        wanted |= event.flags & EXCLUDE_GUEST
    fits = not shared or filter[0] < 0 or filter[0] == wanted
    if guest and cpu.vlbr:
        fits = False            # one fake counter
    if not fits:
        return False
    if shared:
        filter[0] = wanted
    if not cpu.users and not event.ran:
        cpu.fresh |= FRESH_USER
    cpu.users += 1
    if guest:
        cpu.vlbr = 1
    else:
        cpu.hosts += 1
        cpu.pebs += (event.flags & PEBS) != 0
        cpu.flags &= ~EXCLUDE_GUEST | event.flags
        cpu.flags |= event.flags & FILTER
    event.state = EVENT_ACTIVE
    event.ran = 1
    return True


cdef void _place_all(
    PerfCpu* cpu, PerfContext* context, bint pinned, int* filter, int rules
) noexcept nogil:
    cdef int i
    cdef Event* event
    cdef bint can_add = True
    for i in range(EVENT_SLOTS if context != NULL else 0):
        event = &context.event[i]
        if ((event.state == EVENT_INACTIVE or event.state == EVENT_ACTIVE)
                and pinned == ((event.flags & PINNED) != 0)):
            can_add = can_add and _place(cpu, event, filter, rules)
            if not can_add:
                event.state = EVENT_ERROR if pinned else EVENT_INACTIVE


cdef void perf_schedule(PerfCpu* cpu, PerfContext* task, int rules) noexcept nogil:
    """Decide again which events of this CPU and of `task`, if any, are ACTIVE."""
    cdef int filter = -1
    cdef uint8_t hosts = cpu.hosts, flags = cpu.flags
    cpu.users = cpu.hosts = cpu.pebs = cpu.vlbr = cpu.fresh = 0
    cpu.flags = EXCLUDE_GUEST
    _place_all(cpu, &cpu.context, True, &filter, rules)
    _place_all(cpu, task, True, &filter, rules)
    _place_all(cpu, &cpu.context, False, &filter, rules)
    _place_all(cpu, task, False, &filter, rules)
    if not cpu.hosts:
        cpu.flags = 0
    elif hosts and cpu.flags != flags:
        cpu.fresh |= FRESH_FLAGS


cdef void perf_deschedule(PerfContext* context) noexcept nogil:
    """The task leaves: its ACTIVE events become INACTIVE."""
    cdef int i
    for i in range(EVENT_SLOTS):
        if context.event[i].state == EVENT_ACTIVE:
            context.event[i].state = EVENT_INACTIVE


cdef uint64_t perf_control(const PerfCpu* cpu, const Hardware* hw) noexcept nogil:
    """IA32_LBR_CTL, or IA32_DEBUGCTL, with the host's events on.  A call stack is not frozen: a
    PMI beside a call or return could move its top once too often (spec 1.5)."""
    if hw.lbr.config.flavour == LBR_ARCHITECTURAL:
        if cpu.flags & CALL_STACK:
            return CTL_STACK_USR
        return CTL_ANY_USR if cpu.flags & USER_ONLY else CTL_ANY
    if cpu.flags & CALL_STACK:
        return DEBUGCTL_LBR
    return DEBUGCTL_LBR | DEBUGCTL_FREEZE_LBRS_ON_PMI


cdef void perf_enable(PerfCpu* cpu, Hardware* hw) noexcept nogil:
    """__intel_pmu_lbr_enable."""
    cpu.programmed = perf_control(cpu, hw)
    if hw.lbr.config.flavour == LBR_ARCHITECTURAL:
        if cpu.freezes:
            cpu.freeze = not cpu.flags & CALL_STACK
            hw_set_debugctl(hw, DEBUGCTL_FREEZE_LBRS_ON_PMI if cpu.freeze else 0)
        hw_set_ctl(hw, cpu.programmed)
    else:
        hw_set_ctl(hw, SELECT_STACK_USR if cpu.flags & CALL_STACK
                   else SELECT_CPL_EQ_0 if cpu.flags & USER_ONLY else 0)
        hw_set_debugctl(hw, hw.debugctl | cpu.programmed)


cdef void perf_disable(PerfCpu* cpu, Hardware* hw) noexcept nogil:
    """__intel_pmu_lbr_disable.  With architectural LBRs it leaves FREEZE_LBRS_ON_PMI set."""
    cpu.programmed = 0
    if hw.lbr.config.flavour == LBR_ARCHITECTURAL:
        hw_set_ctl(hw, 0)
    else:
        hw_set_debugctl(hw, hw.debugctl
                        & ~<uint64_t> (DEBUGCTL_LBR | DEBUGCTL_FREEZE_LBRS_ON_PMI))
