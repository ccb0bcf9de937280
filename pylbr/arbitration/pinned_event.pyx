"""Policies built on KVM's pinned perf event, which stands for a guest's LBRs.

KVM makes an event (pinned to the vCPU's thread, exclude_host, call-stack filter so that perf
saves and restores the records at task switches) and touches the registers only while it is
ACTIVE.  perf may take the registers in any IPI; the guest is not notified: reads give 0, writes
vanish (spec 5.6, 6).
"""

from lbrcore.control cimport lbr_set_frozen
from libc.string cimport memset

from pylbr.arbitration.microsteps cimport (
    DONE, EXPOSED_RDMSR, EXPOSED_XSAVES, GUEST_DEPTH, GUEST_READ, GUEST_WRITE, GUEST_XRSTORS,
    GUEST_XSAVES, OWNER_GUEST, OWNER_HOST, OWNER_NONE, current_context, guest_image, use_hardware,
    vcpu_index,
)
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport (
    Image, hw_peek, hw_reset_records, hw_restore, hw_restore_msrs, hw_save, hw_save_msrs,
    hw_set_ctl, hw_set_debugctl, hw_write_entry,
)
from pylbr.host.perf cimport (
    CALL_STACK, EVENT_ACTIVE, EVENT_SLOTS, EXCLUDE_GUEST, EXCLUDE_HOST, FRESH_USER, PINNED,
    USER_ONLY, VLBR, PerfContext, perf_close, perf_deschedule, perf_disable, perf_enable, perf_open,
    perf_schedule,
)


cdef class PinnedEvent(Policy):
    """PinnedEvent()\n--\n
    Base of `kvm-legacy` and `arch-lbr-v2`.

    Attributes
    ----------
    flaws : frozenset of str
        Names out of `FLAWS`: bugs that the code has or had.
    """

    #: Name -> (bit, what it does[, feature that it needs]).
    FLAWS = {}

    cdef int set_flaws(self, flaws) except -1:
        self.flaws = frozenset(flaws)
        for name in self.flaws:
            self.flaw_bits |= <uint64_t> 1 << <int> self.FLAWS[name][0]
        return 0

    cdef bint has(self, int flaw) noexcept nogil:
        """Is this bug in?"""
        return (self.flaw_bits >> flaw) & 1

    cdef Event* event(self, System* s, Vcpu* v) noexcept nogil:
        cdef PerfContext* context = &s.thread[vcpu_index(s, v)]
        cdef int i
        for i in range(EVENT_SLOTS):
            if context.event[i].flags & VLBR:
                return &context.event[i]
        return NULL

    cdef bint active(self, System* s, Vcpu* v) noexcept nogil:
        cdef Event* event = self.event(s, v)
        return event != NULL and event.state == EVENT_ACTIVE

    cdef void create(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """intel_pmu_create_guest_lbr_event."""
        cdef PerfContext* context = &s.thread[vcpu_index(s, v)]
        if self.event(s, v) == NULL:
            context.saved_valid = 0
            perf_open(context, PINNED | EXCLUDE_HOST | VLBR | CALL_STACK | USER_ONLY)
            perf_schedule(&c.perf, context, self.sharing)
            self.perf_update(s, c)

    cdef void release(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        cdef Event* event = self.event(s, v)
        if event != NULL:
            perf_close(event)
            s.thread[vcpu_index(s, v)].saved_valid = 0
            perf_schedule(&c.perf, current_context(s, c), self.sharing)
            self.perf_update(s, c)

    cdef void reset(self, System* s, Cpu* c) noexcept nogil:
        """intel_pmu_lbr_reset."""
        hw_reset_records(&c.hw)
        if self.legacy and c.perf.vlbr:
            hw_set_ctl(&c.hw, 0)

    cdef bint guest_records(self, Vcpu* v) noexcept nogil:
        """Has the guest switched recording on?"""
        if self.legacy:
            return v.debugctl & DEBUGCTL_LBR
        return v.ctl & CTL_LBREN

    # perf's side

    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil:
        """ctx_resched: with a vLBR event ACTIVE, perf leaves LBRs alone, its own events or not
        (vlbr_exclude_host)."""
        if c.perf.programmed:
            perf_disable(&c.perf, &c.hw)
        if c.perf.fresh & FRESH_USER:
            self.reset(s, c)
            c.perf.fresh = 0
        if c.perf.hosts and not c.perf.vlbr:
            perf_enable(&c.perf, &c.hw)
        c.perf.granted = c.perf.hosts != 0
        c.owner = <uint8_t> (OWNER_GUEST + c.task - 1 if c.perf.vlbr
                             else OWNER_HOST if c.perf.hosts else OWNER_NONE)

    cdef void task_out(self, System* s, Cpu* c) noexcept nogil:
        """intel_pmu_lbr_sched_task, then the events of the task."""
        cdef PerfContext* context = current_context(s, c)
        if c.perf.users:
            context.saved_valid = c.perf.vlbr or c.perf.flags & CALL_STACK
            if context.saved_valid and self.legacy:
                hw_save_msrs(&c.hw, &context.saved)
            elif context.saved_valid:
                hw_save(&c.hw, &context.saved)
        perf_deschedule(context)
        perf_schedule(&c.perf, NULL, self.sharing)
        c.perf.fresh = 0
        self.perf_update(s, c)

    cdef void task_in(self, System* s, Cpu* c) noexcept nogil:
        cdef PerfContext* context = current_context(s, c)
        perf_schedule(&c.perf, context, self.sharing)
        self.perf_update(s, c)
        if not c.perf.users:
            return
        if not (c.perf.vlbr or c.perf.flags & CALL_STACK) or not context.saved_valid:
            self.reset(s, c)
        elif self.legacy:
            hw_restore_msrs(&c.hw, &context.saved)
            hw_set_ctl(&c.hw, context.saved.ctl)
        else:
            context.saved.ctl = 0 if c.perf.vlbr else c.perf.programmed
            hw_restore(&c.hw, &context.saved)
        context.saved_valid = 0

    cdef void pmi(self, System* s, Cpu* c) noexcept nogil:
        """Read, then acknowledge; a PMU before v4 has lost DEBUGCTL.LBR to the freeze."""
        s.seen.present = c.perf.hosts > c.perf.pebs and not c.perf.vlbr
        if s.seen.present:
            hw_peek(&c.hw, &s.seen.image)
        lbr_set_frozen(&c.hw.lbr, 0)
        if s.seen.present and self.legacy:
            hw_set_debugctl(&c.hw, c.hw.debugctl | c.perf.programmed)

    cdef void pebs(self, System* s, Cpu* c) noexcept nogil:
        """MSR_PEBS_DATA_CFG goes by the host's events alone, vLBR or not."""
        s.seen.present = 1
        hw_peek(&c.hw, &s.seen.image)

    cdef void guest_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """The counter is a perf event: the host's handler acknowledges, LBR_FRZ with the rest,
        and the event's overflow handler has KVM ask for a PMI."""
        lbr_set_frozen(&c.hw.lbr, 0)
        v.pmi = 1
        if not self.late_freeze:
            self.freeze(v)

    cdef void deliver_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        if self.late_freeze:
            self.freeze(v)

    cdef void freeze(self, Vcpu* v) noexcept nogil:
        """What intel_pmu_deliver_pmi does for a vPMU of version 2 or 3 (spec 6, 7)."""
        if not v.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI:
            return
        if self.legacy:
            v.debugctl &= ~<uint64_t> DEBUGCTL_LBR
        else:
            v.ctl &= ~<uint64_t> CTL_LBREN

    cdef bint guest_traced(self, System* s, Cpu* c) noexcept nogil:
        """What perf asks for, whether it gets it or not: as merged, the guest's own DEBUGCTL is
        loaded at every entry, and without its LBR bit a host event records nothing there."""
        return c.perf.hosts and not c.perf.vlbr and not c.perf.flags & EXCLUDE_GUEST

    # KVM's side

    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        v.cleanup = self.event(s, v) != NULL
        return DONE

    cdef int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """kvm_pmu_cleanup, the lazy release: looks at the enable bit alone."""
        if v.cleanup and not self.guest_records(v):
            self.release(s, c, v)
        v.cleanup = 0
        return DONE

    cdef void access(self, System* s, Cpu* c, Vcpu* v, bint real) noexcept nogil:
        """An intercepted access, on the registers or to nothing."""
        cdef int instruction = c.frame[c.frames - 1].arg
        cdef Image image
        if real:
            use_hardware(s, c, OWNER_GUEST + vcpu_index(s, v))
        if instruction == GUEST_READ or instruction == GUEST_XSAVES:
            s.seen.exposure = (EXPOSED_XSAVES if instruction == GUEST_XSAVES
                               else EXPOSED_RDMSR)
            if real:
                hw_peek(&c.hw, &s.seen.image)
            if not self.legacy:
                s.seen.image.ctl = v.ctl
        elif instruction == GUEST_WRITE and real:
            hw_write_entry(&c.hw, 0, &c.operand)
        elif instruction == GUEST_DEPTH and real:
            hw_reset_records(&c.hw)
        elif instruction == GUEST_XRSTORS and real:
            guest_image(c, c.hw.lbr.ctl, c.hw.lbr.depth, &image)
            hw_restore(&c.hw, &image)

    cdef void vpmu_reset(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """intel_pmu_reset releases the event; the next one starts with empty records."""
        self.release(s, c, v)
        v.ctl = v.debugctl = v.smm_ctl = v.other_ctl = 0
        v.pmi = v.smm = v.level2 = 0
        memset(&v.vmcs12, 0, sizeof(v.vmcs12))

    cdef void save_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """KVM_GET_MSRS, one by one."""
        if self.active(s, v):
            hw_peek(&c.hw, &s.seen.image)
        s.seen.image.ctl = v.ctl
        self.release(s, c, v)
