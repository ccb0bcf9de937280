"""What can happen to a system."""

from libc.string cimport memset

from lbrcore.lbr cimport (
    LBR_COND, LBR_EXCEPTION, LBR_NEAR_REL_CALL, LBR_NEAR_RET, LbrState, lbr_branch, lbr_entry,
    lbr_record, lbr_reset,
)
from pylbr.arbitration.microsteps cimport (
    EXPOSED_SAMPLE, EXIT_IRQ, EXIT_PMI, GUEST_ACK, GUEST_DB, GUEST_DEBUGCTL, GUEST_DEPTH,
    GUEST_DISABLE, GUEST_ENABLE, GUEST_FREEZE, GUEST_INIT, GUEST_PEBS, GUEST_PMI, GUEST_READ,
    GUEST_RESET, GUEST_RSM, GUEST_SMI, GUEST_USER_FILTER, GUEST_VMCALL, GUEST_VMLAUNCH,
    GUEST_VMLAUNCH_CONTROLS, GUEST_WRITE, GUEST_XRSTORS, GUEST_XSAVES, OP_CLOSE, OP_ENABLE,
    OP_ENTER, OP_EXIT, OP_MIGRATE, OP_OPEN, OP_ROTATE, OP_SWITCH, OWNER_HOST, Vcpu,
    current_context, guest_execute, nmi, pebs_record, start, step, vcpu_reset,
)
from pylbr.arch.bits cimport CTL_CLASSES, DEBUGCTL_FREEZE_LBRS_ON_PMI
from pylbr.cpu.hardware cimport hw_freeze
from pylbr.host.perf cimport (
    EVENT_ERROR, EVENT_NONE, EVENT_SLOTS, VLBR, PerfContext, perf_needs_rotation,
)
from pylbr.verify.ideal cimport ASKED, host_window, keep_window, push, record_of, retire, written
from pylbr.verify.properties cimport check_exposure, check_invariants, check_sample

cdef enum:
    ON_TASK = 0x40


cdef int world_init(
    World* w, Policy policy, config, int cpus, int guests, int guest_depth=0
) except -1:
    """Reset state: the host's task runs, no LBR is in use."""
    cdef int i
    cdef LbrState fresh = LbrState(config)
    memset(w, 0, sizeof(World))
    w.system.cpus = <uint8_t> cpus
    w.system.guests = <uint8_t> guests
    for i in range(cpus):
        w.system.cpu[i].hw.lbr.config = fresh.state.config
        lbr_reset(&w.system.cpu[i].hw.lbr)
        w.system.cpu[i].irqs = 1
        w.host[i].image.depth = w.system.cpu[i].hw.lbr.depth
    w.system.host_depth = <uint8_t> w.system.cpu[0].hw.lbr.depth
    w.system.depth = <uint8_t> guest_depth or w.system.host_depth
    for i in range(guests):
        vcpu_reset(&w.system, &w.system.vcpu[i])
        w.guest[i].image.depth = w.system.depth
    return 0


# ---------------------------------------------------------------- branches

cdef void _branch(World* w, Policy policy, Cpu* c, int owner, int flags) noexcept nogil:
    """One branch retires on this CPU."""
    cdef lbr_entry entry = record_of(w, owner, flags)
    cdef lbr_branch branch
    cdef int cpu = <int> (c - &w.system.cpu[0])
    memset(&branch, 0, sizeof(branch))
    branch.from_ = entry.from_
    branch.to = entry.to
    branch.cls = (LBR_EXCEPTION if flags & FAULT else LBR_NEAR_RET if flags & RETURN
                  else LBR_COND if flags & JUMP else LBR_NEAR_REL_CALL)
    branch.cpl_from = branch.cpl_to = 0 if flags & KERNEL else 3
    if not owner:
        push(&w.host[cpu], &entry, flags, True)
    else:
        push(&w.guest[owner - 1], &entry, flags,
             policy.legacy or w.guest[owner - 1].image.ctl & CTL_CLASSES)
        if policy.guest_traced(&w.system, c):
            push(&w.host[cpu], &entry, flags, True)
    lbr_record(&c.hw.lbr, &branch)


cdef void _stray_branch(World* w, Policy policy, Cpu* c, int cpu) noexcept nogil:
    """An NMI that is no PMI runs host code inside an operation.  It belongs to the host's
    window only while perf has the registers; it must never land in another's."""
    cdef uint8_t on = w.host[cpu].on
    w.host[cpu].on = on and c.owner == OWNER_HOST and c.hw.lbr.active
    _branch(w, policy, c, 0, 0)
    w.host[cpu].on = on


# ---------------------------------------------------------------- actions

cdef inline void _add(Action* out, int* n, int kind, int cpu, int arg) noexcept nogil:
    out[n[0]].kind = <uint8_t> kind
    out[n[0]].cpu = <uint8_t> cpu
    out[n[0]].arg = <uint8_t> arg
    n[0] += 1


cdef void _branches(const Options* o, Action* out, int* n, int kind, int cpu) noexcept nogil:
    _add(out, n, kind, cpu, 0)
    if o.features & F_KERNEL:
        _add(out, n, kind, cpu, KERNEL)
    if o.features & F_FAULT:
        _add(out, n, kind, cpu, FAULT)
    if o.features & F_STACK:
        _add(out, n, kind, cpu, RETURN)
        _add(out, n, kind, cpu, JUMP)


cdef void _nested_actions(
    const Ideal* ideal, bint legacy, Action* out, int* n, int cpu
) noexcept nogil:
    """L1 intercepts no LBR register of L2: an access that it did would be a GUEST_VMCALL."""
    if ideal.level2:
        _add(out, n, GUEST, cpu, GUEST_VMCALL)
        if not legacy:
            _add(out, n, GUEST, cpu, GUEST_DEBUGCTL)
    elif not ideal.smm_on:
        _add(out, n, GUEST, cpu, GUEST_VMLAUNCH)
        _add(out, n, GUEST, cpu, GUEST_VMLAUNCH_CONTROLS)


cdef void _guest_actions(
    World* w, Policy policy, const Options* o, Action* out, int* n, int cpu
) noexcept nogil:
    cdef Ideal* ideal = &w.guest[w.system.cpu[cpu].guest - 1]
    cdef int instruction
    _branches(o, out, n, GUEST_BRANCH, cpu)
    if w.system.cpu[cpu].pmi:   # it comes before anything that takes long
        _add(out, n, EXIT, cpu, EXIT_PMI)
        return
    _add(out, n, EXIT, cpu, EXIT_IRQ)
    _add(out, n, GUEST, cpu, GUEST_READ)
    if ideal.on or (ideal.smm_on and ideal.image.ctl):
        _add(out, n, GUEST, cpu, GUEST_DISABLE)
    elif not ideal.smm_on:
        _add(out, n, GUEST, cpu, GUEST_ENABLE)
        if o.features & F_KERNEL:
            _add(out, n, GUEST, cpu, GUEST_USER_FILTER)
    if o.features & F_WRITE:
        _add(out, n, GUEST, cpu, GUEST_WRITE)
    if o.features & F_DEPTH and not policy.legacy:
        _add(out, n, GUEST, cpu, GUEST_DEPTH)
    if o.features & F_XSAVES and not policy.legacy:
        _add(out, n, GUEST, cpu, GUEST_XSAVES)
    if o.features & F_PEBS and policy.guest_pebs:
        _add(out, n, GUEST, cpu, GUEST_PEBS)
    if o.features & F_VPMI:
        _add(out, n, GUEST, cpu, GUEST_PMI)
        if not ideal.freeze:
            _add(out, n, GUEST, cpu, GUEST_FREEZE)
        if ideal.frozen:
            _add(out, n, GUEST, cpu, GUEST_ACK)
        if w.system.cpu[cpu].perf.hosts > w.system.cpu[cpu].perf.pebs and not policy.mediated:
            _add(out, n, EXIT, cpu, EXIT_PMI)
    if o.features & F_XRSTORS and not policy.legacy:
        _add(out, n, GUEST, cpu, GUEST_XRSTORS)
    if o.features & F_RESET:
        _add(out, n, GUEST, cpu, GUEST_RESET)
    if o.features & F_NESTED:
        _nested_actions(ideal, policy.legacy, out, n, cpu)
    if ideal.level2:
        return
    if o.features & F_INIT:
        _add(out, n, GUEST, cpu, GUEST_INIT)
    if o.features & F_SMM and not policy.legacy:
        instruction = GUEST_RSM if ideal.smm_on else GUEST_SMI
        _add(out, n, GUEST, cpu, instruction)
    if o.features & F_DB and ideal.on:
        _add(out, n, GUEST, cpu, GUEST_DB)


cdef bint _runs(World* w, int task) noexcept nogil:
    """Is the task on some CPU, or about to be?"""
    cdef int cpu
    for cpu in range(w.system.cpus):
        if w.system.cpu[cpu].task == task:
            return True
        if (w.system.cpu[cpu].frames and w.system.cpu[cpu].frame[0].op == OP_SWITCH
                and w.system.cpu[cpu].frame[0].arg == task):
            return True
    return False


cdef void _task_actions(
    World* w, const Options* o, Action* out, int* n, int cpu
) noexcept nogil:
    cdef Cpu* c = &w.system.cpu[cpu]
    cdef int task
    _branches(o, out, n, HOST_BRANCH, cpu)
    if c.pmi:
        return
    if c.task:
        _add(out, n, ENTER, cpu, 0)
        if o.features & F_MIGRATE:
            _add(out, n, MIGRATE, cpu, 0)
    for task in range(w.system.guests + 1):
        if task != c.task and not (task and _runs(w, task)):
            _add(out, n, SWITCH, cpu, task)


cdef void _event_actions(
    World* w, const Options* o, Action* out, int* n, int cpu
) noexcept nogil:
    """perf_event_open, close and enable, as IPIs to this CPU, and its multiplex timer."""
    cdef Cpu* c = &w.system.cpu[cpu]
    cdef PerfContext* contexts[2]
    cdef int i, slot, open_events = 0, on_task
    contexts[0] = &c.perf.context
    contexts[1] = current_context(&w.system, c)
    for on_task in range(2):
        for slot in range(EVENT_SLOTS):
            if (contexts[on_task].event[slot].state == EVENT_NONE
                    or contexts[on_task].event[slot].flags & VLBR):
                continue
            open_events += 1
            if o.features & F_ENABLE and contexts[on_task].event[slot].state == EVENT_ERROR:
                _add(out, n, ENABLE, cpu, slot | (ON_TASK if on_task else 0))
            _add(out, n, CLOSE, cpu, slot | (ON_TASK if on_task else 0))
    for i in range(o.kinds if open_events < o.events else 0):
        _add(out, n, OPEN, cpu, o.kind[i])
    if o.features & F_ROTATE and (perf_needs_rotation(contexts[0])
                                  or perf_needs_rotation(contexts[1])):
        _add(out, n, ROTATE, cpu, 0)


cdef int enabled(World* w, Policy policy, const Options* o, Action* out) noexcept nogil:
    """What can happen next; at most MAX_ACTIONS."""
    cdef int n = 0, cpu
    cdef Cpu* c
    for cpu in range(w.system.cpus):
        c = &w.system.cpu[cpu]
        if c.guest and not c.frames:
            _guest_actions(w, policy, o, out, &n, cpu)
            continue
        if c.frames:
            _add(out, &n, STEP, cpu, 0)
        else:
            _task_actions(w, o, out, &n, cpu)
        if c.irqs and c.frames < 2 and not c.pmi:
            _event_actions(w, o, out, &n, cpu)
        if o.features & F_PEBS and c.perf.pebs:
            _add(out, &n, PEBS_RECORD, cpu, 0)
        if o.features & F_NMI and c.perf.hosts > c.perf.pebs or c.pmi:
            _add(out, &n, NMI, cpu, 0)
        if o.features & F_HOST_FREEZE and not c.pmi and c.perf.hosts > c.perf.pebs and (
                c.perf.granted or not policy.mediated):
            _add(out, &n, OVERFLOW, cpu, 0)
        if o.features & F_NMI_BRANCH and c.frames:
            _add(out, &n, NMI, cpu, 1)
    return n


cdef void _guest_instruction(
    World* w, Policy policy, Cpu* c, int instruction
) noexcept nogil:
    cdef Vcpu* v = &w.system.vcpu[c.guest - 1]
    if instruction == GUEST_WRITE or instruction == GUEST_XRSTORS:
        c.operand = record_of(w, c.guest, 0)
        written(&w.guest[c.guest - 1], &c.operand, instruction == GUEST_XRSTORS)
    if policy.exits(&w.system, c, v, instruction):
        start(&w.system, c, OP_EXIT, instruction)
        step(&w.system, c, policy)
    else:
        guest_execute(&w.system, c, instruction)
        memset(&c.operand, 0, sizeof(lbr_entry))


cdef uint32_t apply(World* w, Policy policy, const Options* o, Action action) noexcept nogil:
    """Let it happen; bits of the properties that are now broken."""
    cdef System* s = &w.system
    cdef Cpu* c = &s.cpu[action.cpu]
    cdef int task = c.task, hosts = c.perf.hosts, filter = c.perf.flags & ASKED
    cdef uint32_t failed = 0
    memset(&s.seen, 0, sizeof(s.seen))
    if action.kind == SWITCH:
        keep_window(w, action.cpu)
    if action.kind == STEP:
        step(s, c, policy)
    elif action.kind == HOST_BRANCH:
        _branch(w, policy, c, 0, action.arg)
    elif action.kind == GUEST_BRANCH:
        _branch(w, policy, c, c.guest, action.arg)
    elif action.kind == GUEST:
        _guest_instruction(w, policy, c, action.arg)
    elif action.kind == NMI and action.arg:
        _stray_branch(w, policy, c, action.cpu)
    elif action.kind == NMI:
        nmi(s, c, policy)
    elif action.kind == PEBS_RECORD:
        pebs_record(s, c, policy)
    elif action.kind == OVERFLOW:
        c.pmi = 1
        w.host[action.cpu].frozen = c.hw.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI != 0
        hw_freeze(&c.hw)
    else:
        start(s, c, OP_SWITCH if action.kind == SWITCH else OP_ENTER if action.kind == ENTER
              else OP_EXIT if action.kind == EXIT else OP_OPEN if action.kind == OPEN
              else OP_CLOSE if action.kind == CLOSE else OP_ENABLE if action.kind == ENABLE
              else OP_ROTATE if action.kind == ROTATE else OP_MIGRATE, action.arg)
        step(s, c, policy)
    host_window(w, action.cpu, task, hosts, filter)
    if not c.pmi and o.features & F_HOST_FREEZE:
        w.host[action.cpu].frozen = 0
    if s.seen.failures:
        failed |= s.seen.failures & 1 and 1 << P6
        failed |= s.seen.failures & 2 and 1 << P22
        failed |= s.seen.failures & 4 and 1 << P23
    if s.seen.instruction:
        retire(w, policy)
        memset(&c.operand, 0, sizeof(lbr_entry))
    if s.seen.exposure == EXPOSED_SAMPLE:
        failed |= check_sample(w, policy, action.cpu)
    elif s.seen.exposure:
        failed |= check_exposure(
            w, policy, s.seen.guest - 1, &s.seen.image, s.seen.cut, s.seen.exposure)
    return failed | check_state(w, policy, o)


cdef uint32_t check_state(World* w, Policy policy, const Options* o) noexcept nogil:
    return check_invariants(w, policy, (o.features & F_XSAVES) != 0)
