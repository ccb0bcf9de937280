"""Operations as lists of micro-steps.

Interrupts can land between two steps where `Cpu.irqs` is set, an NMI between any two.  The
steps follow the kernel: context_switch, vcpu_enter_guest, an IPI that installs or removes an
event.  A policy acts in its hooks.
"""

from libc.string cimport memset

from lbrcore.control cimport lbr_set_frozen
from lbrcore.lbr cimport LBR_LEGACY
from pylbr.arch.bits cimport SELECT_CPL_EQ_0
from pylbr.cpu.hardware cimport (
    CTL_ANY, CTL_ANY_USR, hw_freeze, hw_peek, hw_reset_records, hw_restore, hw_set_ctl,
    hw_vm_entry, hw_vm_exit, hw_write_entry,
)
from pylbr.host.perf cimport (
    EVENT_INACTIVE, EXCLUDE_GUEST, perf_close, perf_open, perf_rotate, perf_schedule,
)

from pylbr.errors import ConfigurationError

cdef enum:
    ON_TASK = 0x40              # argument of OP_OPEN and OP_CLOSE: the present task's context

#: Flag of an event's kind: bound to the task, not to the CPU.
EVENT_ON_TASK = ON_TASK


cdef int vcpu_index(System* s, Vcpu* v) noexcept nogil:
    return <int> (v - &s.vcpu[0])


cdef PerfContext* current_context(System* s, Cpu* c) noexcept nogil:
    return &s.thread[c.task - 1] if c.task else &c.host_task


cdef void use_hardware(System* s, Cpu* c, int owner) noexcept nogil:
    """To be called with every access to the registers on behalf of `owner`."""
    if c.owner != owner:
        s.seen.failures |= FAIL_CHECK_AND_USE


cdef void vcpu_reset(System* s, Vcpu* v) noexcept nogil:
    cdef uint8_t loaded = v.loaded
    memset(v, 0, sizeof(Vcpu))
    v.loaded = loaded
    v.xss_exit = 1
    v.image.depth = s.depth


cdef void start(System* s, Cpu* c, int op, int arg) noexcept nogil:
    cdef Frame* frame = &c.frame[c.frames]
    memset(frame, 0, sizeof(Frame))
    frame.op = <uint8_t> op
    frame.step = <uint8_t> (RESCHEDULE if op in (OP_OPEN, OP_CLOSE, OP_ENABLE, OP_ROTATE)
                            else op * 8)
    frame.arg = <uint8_t> arg
    c.frames += 1
    if op == OP_OPEN or op == OP_CLOSE or op == OP_ENABLE or op == OP_ROTATE:
        c.irqs = 0


# ---------------------------------------------------------------- what a guest executes itself

cdef uint64_t guest_control(int instruction, uint64_t old, bint legacy) noexcept nogil:
    """Value that the guest writes to its control register."""
    if legacy:
        return SELECT_CPL_EQ_0 if instruction == GUEST_USER_FILTER else old
    if instruction == GUEST_ENABLE:
        return CTL_ANY
    if instruction == GUEST_USER_FILTER:
        return CTL_ANY_USR
    return 0


cdef void guest_image(const Cpu* c, uint64_t ctl, uint64_t depth, Image* image) noexcept nogil:
    """What a guest restores by XRSTORS: one record and the control that it has."""
    memset(image, 0, sizeof(Image))
    image.ctl = ctl
    image.depth = depth
    image.entry[0] = c.operand


cdef void guest_execute(System* s, Cpu* c, int instruction) noexcept nogil:
    """An instruction that does not exit acts on the registers as they are."""
    cdef Image image
    if instruction == GUEST_READ or instruction == GUEST_XSAVES:
        hw_peek(&c.hw, &s.seen.image)
        s.seen.exposure = EXPOSED_XSAVES if instruction == GUEST_XSAVES else EXPOSED_RDMSR
        s.seen.cut = s.vcpu[c.guest - 1].lost
    elif instruction == GUEST_XRSTORS:
        guest_image(c, c.hw.lbr.ctl, c.hw.lbr.depth, &image)
        hw_restore(&c.hw, &image)
    elif instruction == GUEST_PEBS:
        if s.vcpu[c.guest - 1].pebs_lbrs:  # else the record has no such group
            hw_peek(&c.hw, &s.seen.image)
            s.seen.exposure = EXPOSED_PEBS
            s.seen.cut = s.vcpu[c.guest - 1].lost
    elif instruction == GUEST_WRITE:
        hw_write_entry(&c.hw, 0, &c.operand)
    elif instruction == GUEST_DEPTH:
        hw_reset_records(&c.hw)
    elif instruction == GUEST_ACK:
        lbr_set_frozen(&c.hw.lbr, 0)
    else:
        hw_set_ctl(&c.hw, guest_control(
            instruction, c.hw.lbr.ctl, c.hw.lbr.config.flavour == LBR_LEGACY))
    s.seen.guest = c.guest
    s.seen.instruction = <uint8_t> instruction


# ---------------------------------------------------------------- operations

cdef inline void _next(Frame* frame) noexcept nogil:
    frame.step += 1
    frame.part = 0


cdef inline bint _hook(Frame* frame, int result) noexcept nogil:
    """Take the next step once the hook is done."""
    if result == DONE:
        _next(frame)
        return True
    frame.part = <uint8_t> result
    return False


cdef bint _switch(System* s, Cpu* c, Frame* f, Policy policy) noexcept nogil:
    """context_switch, and the preempt notifiers of KVM."""
    cdef Vcpu* v = &s.vcpu[c.task - 1] if c.task else NULL
    if f.step == TASK_OUT:
        c.irqs = 0
        policy.task_out(s, c)
        _next(f)
        if v == NULL:
            _next(f)
    elif f.step == VCPU_PUT:
        if _hook(f, policy.vcpu_put(s, c, v, f.part)):
            v.loaded = 0
            if c.wanted:
                s.seen.failures |= FAIL_PROGRESS
    elif f.step == TASK_IN:
        c.task = f.arg
        policy.task_in(s, c)
        _next(f)
    elif f.step == SWITCH_IRQS_ON:
        c.irqs = 1
        if v == NULL:
            return True
        v.loaded = <uint8_t> (1 + (c - &s.cpu[0]))
        _next(f)
    else:
        return _hook(f, policy.vcpu_load(s, c, v, f.part))
    return False


cdef bint _enter(System* s, Cpu* c, Frame* f, Policy policy) noexcept nogil:
    """vcpu_enter_guest, up to the guest's first instruction."""
    cdef Vcpu* v = &s.vcpu[c.task - 1]
    if f.step == SAFE_POINT:
        if _hook(f, policy.safe_point(s, c, v, f.part)) and v.pmi:
            policy.deliver_pmi(s, c, v)
            v.pmi = 0
    elif f.step == RECHECK:
        if policy.pending(s, c, v):
            f.step = SAFE_POINT
            f.part = 0
        else:
            c.irqs = 0
            _next(f)
    elif f.step == PREPARE_ENTRY:
        _hook(f, policy.before_entry(s, c, v, f.part))
    else:
        if c.wanted and policy.serves_at_entry:
            s.seen.failures |= FAIL_PROGRESS
        hw_vm_entry(&c.hw, &v.vmcs)
        c.guest = c.task
        return True
    return False


cdef bint _exit(System* s, Cpu* c, Frame* f, Policy policy) noexcept nogil:
    """VM exit, and the emulation of what caused it."""
    cdef Vcpu* v = &s.vcpu[c.task - 1]
    if f.step == VM_EXIT:
        if f.arg == GUEST_PMI or f.arg == EXIT_PMI and not c.pmi:
            hw_freeze(&c.hw)
        hw_vm_exit(&c.hw, &v.vmcs)
        c.guest = 0
        _next(f)
    elif f.step == AFTER_EXIT:
        _hook(f, policy.after_exit(s, c, v, f.part))
    elif f.step == EXIT_IRQS_ON:
        if f.arg == EXIT_PMI or f.arg == GUEST_PMI and c.pmi:  # one handler for both
            policy.pmi(s, c)
            c.pmi = 0
            s.seen.exposure = EXPOSED_SAMPLE
        if f.arg == GUEST_PMI:
            policy.guest_pmi(s, c, v)
        c.irqs = 1
        _next(f)
        return f.arg == EXIT_IRQ or f.arg == EXIT_PMI
    elif _hook(f, policy.emulate(s, c, v, f.part)):
        s.seen.guest = c.task
        s.seen.instruction = f.arg
        return True
    return False


cdef bint _open(System* s, Cpu* c, Frame* f, Policy policy) noexcept nogil:
    """An IPI that installs an event, removes one or enables it; or the multiplex timer."""
    cdef PerfContext* context = &c.perf.context
    if f.step == RESCHEDULE:
        if f.arg & ON_TASK:
            context = current_context(s, c)
        if f.op == OP_ROTATE:
            perf_rotate(&c.perf.context)
            perf_rotate(current_context(s, c))
        elif f.op == OP_ENABLE:
            context.event[f.arg & ~ON_TASK].state = EVENT_INACTIVE
        elif f.op == OP_CLOSE:
            perf_close(&context.event[f.arg & ~ON_TASK])
        elif f.arg & EXCLUDE_GUEST or not policy.refuses_guest_tracing:
            perf_open(context, f.arg & ~ON_TASK)  # else -EOPNOTSUPP
        perf_schedule(&c.perf, current_context(s, c), policy.sharing)
        policy.perf_update(s, c)
        _next(f)
        return False
    c.irqs = 1
    return True


cdef bint _migrate(System* s, Cpu* c, Frame* f, Policy policy) noexcept nogil:
    """User space reads the vCPU's state, and sets it in a new vCPU."""
    cdef Vcpu* v = &s.vcpu[c.task - 1]
    cdef Vcpu old
    if f.step == MIGRATE_PUT:
        _hook(f, policy.vcpu_put(s, c, v, f.part))
    elif f.step == MOVE_STATE:
        policy.save_state(s, c, v)
        s.seen.exposure = EXPOSED_SAVED_STATE
        s.seen.guest = c.task
        old = v[0]
        vcpu_reset(s, v)
        v.smm, v.smm_ctl = old.smm, old.smm_ctl  # in SMRAM, which is guest memory
        v.pmi, v.frozen = old.pmi, old.frozen
        if not policy.legacy or policy.keeps_debugctl:
            v.debugctl = old.debugctl
        v.level2, v.vmcs12, v.other_ctl = old.level2, old.vmcs12, old.other_ctl
        policy.restore_state(s, c, v)
        _next(f)
    else:
        return _hook(f, policy.vcpu_load(s, c, v, f.part))
    return False


cdef bint step(System* s, Cpu* c, Policy policy) noexcept nogil:
    """One micro-step of the topmost operation; True if that was its last."""
    cdef Frame* f = &c.frame[c.frames - 1]
    cdef bint done = True
    if f.op == OP_SWITCH:
        done = _switch(s, c, f, policy)
    elif f.op == OP_ENTER:
        done = _enter(s, c, f, policy)
    elif f.op == OP_EXIT:
        done = _exit(s, c, f, policy)
    elif f.op == OP_OPEN or f.op == OP_CLOSE or f.op == OP_ENABLE or f.op == OP_ROTATE:
        done = _open(s, c, f, policy)
    elif f.op == OP_MIGRATE:
        done = _migrate(s, c, f, policy)
    if done:
        c.frames -= 1
        memset(f, 0, sizeof(Frame))
    return done


cdef void nmi(System* s, Cpu* c, Policy policy) noexcept nogil:
    """A counter overflows, unless it has: LBRs freeze, and the handler runs to its end (spec 5.3).
    The counters stand still while a mediated guest has the PMU."""
    if not c.pmi and (c.perf.granted or not policy.mediated):
        hw_freeze(&c.hw)
    policy.pmi(s, c)
    c.pmi = 0
    s.seen.exposure = EXPOSED_SAMPLE


cdef void pebs_record(System* s, Cpu* c, Policy policy) noexcept nogil:
    """The hardware writes a record for an event of the host, no handler being involved."""
    policy.pebs(s, c)
    s.seen.exposure = EXPOSED_SAMPLE


# ---------------------------------------------------------------- the interface's defaults

cdef class Policy:
    """Policy()\n--\n
    How host and guests share one LBR facility.

    A compiled policy overrides the hooks below, which are C methods (``microsteps.pxd``).  A policy
    in plain Python derives from `pylbr.arbitration.plain.PlainPolicy`, which lists the hooks that
    it can define.

    Attributes
    ----------
    name : str
    problem : str or None
        What a hook in Python raised.
    claims : tuple of str or None
        Properties that the policy promises; None: all of them.
    by_design : tuple of str or None
        Properties that it breaks in so many ways that a search continues after them.
    legacy : bool
        Needs a processor with legacy LBRs.
    guest_short, guest_flag : bool
        Records that a guest misses show as empty entries; and by a flag.
    host_short, host_flag : bool
        The same of the host's samples.
    serves_at_entry : bool
        A VM entry is a safe point: a request is served there.
    sharing : int
        `SharingRule` bits: how perf schedules events that share the facility.
    refuses_guest_tracing : bool
        Host events must exclude guests.
    any_depth : bool
        Guests may have another depth than the host.
    mediated : bool
        A vCPU that is loaded has the whole PMU, PMIs included.
    freeze_clears_enable : bool
        The guest's PMU is of version 2, without LBR_FRZ.
    keeps_debugctl : bool
        User space saves the IA32_DEBUGCTL of a guest with legacy LBRs.
    lazy : bool
        A guest gets the registers when it sets LBREn, not when it first touches an LBR register;
        its writes of IA32_LBR_CTL are intercepted.
    guest_pebs : bool
        PEBS_BASELINE is offered: a guest's PEBS records may contain LBRs.
    nested_controls : bool
        L1 is offered the VMX controls for LBRs.

    Hooks
    -----
    perf_update
        The set of scheduled events has changed; interrupts are off.
    task_out, task_in
        perf's part of a task that leaves or comes; interrupts are off.
    vcpu_load
        A vCPU comes to this CPU; interrupts are on.
    vcpu_put
        A vCPU leaves this CPU; interrupts may be on.
    safe_point
        In the run loop, with interrupts on: serve requests.
    pending
        With interrupts off: must `safe_point` run once more?
    before_entry
        The last steps before VM entry; interrupts are off.
    after_exit
        The first steps after VM exit; interrupts are off.
    emulate
        Emulate what the guest tried to do; interrupts are on.
    pmi
        The host's PMI handler reads a sample and acknowledges.
    pebs
        The hardware writes the LBR group of a PEBS record of the host.
    guest_pmi
        A counter of the guest has overflowed, and this is its VM exit; interrupts are off.
    deliver_pmi
        The PMI is about to be injected into the guest.
    save_state
        User space reads the guest's LBR registers; the vCPU is put.
    restore_state
        User space sets the LBR registers of a vCPU fresh from reset.
    guest_traced
        Do the branches that the guest takes now belong to the host's records?
    exits
        Does this `Instruction` of the running guest exit?
    """

    cdef int fail(self, str problem) except -1:
        """Note the first problem; what runs the policy looks for it with `check`."""
        if self.problem is None:
            self.problem = problem
        self.stopped = True
        return 0

    def check(self):
        """Raise ConfigurationError if a hook in Python has raised or returned a wrong value."""
        if self.problem is not None:
            raise ConfigurationError(self.problem)

    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil:
        """The set of scheduled events has changed; interrupts are off."""

    cdef void task_out(self, System* s, Cpu* c) noexcept nogil:
        """perf's part of a task leaving; interrupts are off."""

    cdef void task_in(self, System* s, Cpu* c) noexcept nogil:
        """perf's part of a task coming in; interrupts are off."""

    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """A vCPU comes to this CPU; interrupts are on."""
        return DONE

    cdef int vcpu_put(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """A vCPU leaves this CPU; interrupts may be on."""
        return DONE

    cdef int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """In the run loop with interrupts on: serve requests."""
        return DONE

    cdef bint pending(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """Looked at with interrupts off: must `safe_point` run once more?"""
        return False

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """The last steps before VM entry; interrupts are off."""
        return DONE

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """The first steps after VM exit; interrupts are off."""
        return DONE

    cdef int emulate(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """What the guest tried to do; interrupts are on.  Results go to `System.seen`."""
        return DONE

    cdef void pmi(self, System* s, Cpu* c) noexcept nogil:
        """The PMI handler reads a sample into `System.seen` and acknowledges."""

    cdef void pebs(self, System* s, Cpu* c) noexcept nogil:
        """The LBR group of a PEBS record of the host goes to `System.seen`."""

    cdef void guest_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """A counter of the guest has overflowed, and this is its exit; interrupts are off."""

    cdef void deliver_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """The PMI is about to be injected."""

    cdef void save_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """User space reads the guest's LBR registers into `System.seen`; the vCPU is put."""

    cdef void restore_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """User space sets them from `System.seen` in a vCPU fresh from reset."""

    cdef bint guest_traced(self, System* s, Cpu* c) noexcept nogil:
        """Does what the guest executes now belong to the host's window?"""
        return False

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        """Does this instruction of the running guest exit?"""
        if instruction == GUEST_XSAVES or instruction == GUEST_XRSTORS:
            return v.xss_exit
        if instruction == GUEST_PEBS:
            return False
        return instruction >= GUEST_INIT or not v.passthrough
