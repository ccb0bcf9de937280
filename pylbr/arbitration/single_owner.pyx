"""Policies in which the registers have one owner at a time.

The registers pass from one owner to the next only empty: the one that leaves saves what it needs
and wipes.
perf does not take them; it is attached when they are free, and asks (`Cpu.wanted`) if not.
A guest's records live in `Vcpu.image` whenever they are not in the registers; accesses that
are intercepted go there and never to the registers.
"""

from libc.string cimport memset

from lbrcore.control cimport lbr_set_frozen
from pylbr.arbitration.microsteps cimport (
    DONE, EXPOSED_RDMSR, EXPOSED_XSAVES, FAIL_IDEMPOTENT, GUEST_ACK, GUEST_DB, GUEST_DEBUGCTL,
    GUEST_DEPTH, GUEST_DISABLE, GUEST_ENABLE, GUEST_FREEZE, GUEST_INIT, GUEST_PMI, GUEST_READ,
    GUEST_RESET, GUEST_RSM, GUEST_SMI, GUEST_USER_FILTER, GUEST_VMCALL, GUEST_VMLAUNCH,
    GUEST_VMLAUNCH_CONTROLS, GUEST_WRITE,
    GUEST_XRSTORS, GUEST_XSAVES, OWNER_GUEST, OWNER_HOST, OWNER_NONE, current_context,
    guest_control, guest_image, use_hardware, vcpu_index,
)
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_FREEZE_LBRS_ON_PMI
from pylbr.cpu.hardware cimport (
    hw_init, hw_peek, hw_reset_records, hw_restore, hw_save, hw_set_ctl, hw_set_debugctl,
    image_clear,
)
from pylbr.host.perf cimport (
    CALL_STACK, EXCLUDE_GUEST, FRESH_FLAGS, PerfContext, perf_control, perf_deschedule,
    perf_disable, perf_enable, perf_schedule,
)
from pylbr.kvm.nested cimport nested_entry, nested_exit


cdef class SingleOwner(Policy):
    """SingleOwner()\n--\n
    Base of `request`, `mediated` and `lease`: the registers have one owner at a time.

    The hooks are described in `pylbr.arbitration.Policy`.
    """

    cdef bint wants(self, Vcpu* v) noexcept nogil:
        """Is the guest to get registers without an owner?"""
        return v.ctl & CTL_LBREN if self.lazy else v.uses

    cdef void wipe(self, System* s, Cpu* c) noexcept nogil:
        """Empty registers whose owner has left."""
        hw_init(&c.hw)

    cdef void attach(self, System* s, Cpu* c) noexcept nogil:
        """perf gets registers without an owner."""
        if c.perf.granted:
            s.seen.failures |= FAIL_IDEMPOTENT
        c.owner = OWNER_HOST
        c.perf.granted = 1
        perf_enable(&c.perf, &c.hw)
        c.wanted = 0

    cdef void detach(self, System* s, Cpu* c) noexcept nogil:
        """perf leaves the registers."""
        c.perf.granted = 0
        perf_disable(&c.perf, &c.hw)
        c.perf.programmed = 0
        self.wipe(s, c)
        c.owner = OWNER_NONE

    cdef void load_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """The guest gets registers without an owner; LBREn waits for VM entry."""
        c.owner = <uint8_t> (OWNER_GUEST + vcpu_index(s, v))
        v.image.ctl = 0
        hw_restore(&c.hw, &v.image)

    cdef void save_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        use_hardware(s, c, OWNER_GUEST + vcpu_index(s, v))
        hw_save(&c.hw, &v.image)
        v.image.ctl = 0

    cdef int yield_guest(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """The guest's turn ends, in three steps with interrupts off: save, wipe, pass on."""
        if pc == 0:
            c.scratch = c.irqs
            c.irqs = 0
            self.save_guest(s, c, v)
            return 1
        if pc == 1:
            self.wipe(s, c)
            c.owner = OWNER_NONE
            return 2
        if c.perf.hosts:
            self.attach(s, c)
        c.irqs = c.scratch
        c.scratch = 0
        return DONE

    cdef void admit(self, Cpu* c, Vcpu* v) noexcept nogil:
        """The guest enters as owner."""
        if c.perf.freezes:
            v.snapshot = c.hw.debugctl
            hw_set_debugctl(&c.hw, 0)  # no overflow of the host freezes from here on
        if c.hw.lbr.frozen:     # by a counter of the host, whose PMI has still to come
            c.perf.frozen = 1
            lbr_set_frozen(&c.hw.lbr, 0)  # IA32_PERF_GLOBAL_STATUS_RESET
        if v.frozen:
            lbr_set_frozen(&c.hw.lbr, 1)  # IA32_PERF_GLOBAL_STATUS_SET
        v.vmcs.debugctl = v.debugctl
        v.passthrough = v.pebs_lbrs = 1
        v.xss_exit = 0
        v.vmcs.lbr_ctl = v.ctl
        v.vmcs.load_lbr_ctl = 1
        v.vmcs.clear_lbr_ctl = 1

    cdef void keep_out(self, Cpu* c, Vcpu* v) noexcept nogil:
        """The guest enters without the registers.  If it records, its records break off
        here; an empty stack shows it."""
        v.passthrough = 0
        v.xss_exit = 1
        v.pebs_lbrs = 0
        if c.perf.freezes:
            v.snapshot = c.hw.debugctl
        v.vmcs.debugctl = v.debugctl
        if v.ctl & CTL_LBREN and not v.frozen:
            image_clear(&v.image)
            v.lost = self.guest_flag
        v.vmcs.lbr_ctl = 0
        v.vmcs.clear_lbr_ctl = 0
        if self.mediated and v.frozen:
            lbr_set_frozen(&c.hw.lbr, 1)  # the guest's PMU is loaded, its LBRs are not
        v.vmcs.load_lbr_ctl = not (c.perf.granted and not c.perf.flags & EXCLUDE_GUEST)

    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil:
        if not c.perf.hosts:
            if c.perf.granted:
                self.detach(s, c)
            c.wanted = 0
        elif c.perf.granted:
            if c.perf.fresh & FRESH_FLAGS:
                hw_reset_records(&c.hw)
            if c.perf.programmed != perf_control(&c.perf, &c.hw):
                perf_enable(&c.perf, &c.hw)
        elif c.owner == OWNER_NONE:
            self.attach(s, c)
        else:
            c.wanted = 1

    cdef void task_out(self, System* s, Cpu* c) noexcept nogil:
        """Records of call-stack events go with their task."""
        cdef PerfContext* context = current_context(s, c)
        if c.perf.granted and c.perf.flags & CALL_STACK:
            hw_save(&c.hw, &context.saved)
            context.saved_valid = 1
        else:
            context.saved_valid = 0
        context.saved_cut = (c.perf.flags & CALL_STACK) != 0 and (c.perf.cut or not c.perf.granted)
        perf_deschedule(context)
        perf_schedule(&c.perf, NULL, self.sharing)
        self.perf_update(s, c)

    cdef void task_in(self, System* s, Cpu* c) noexcept nogil:
        cdef PerfContext* context = current_context(s, c)
        perf_schedule(&c.perf, context, self.sharing)
        self.perf_update(s, c)
        if c.perf.granted:
            hw_reset_records(&c.hw)
            c.perf.cut = 0
            if c.perf.flags & CALL_STACK and context.saved_valid:
                context.saved.ctl = c.perf.programmed
                hw_restore(&c.hw, &context.saved)
        if c.perf.flags & CALL_STACK:
            c.perf.cut |= context.saved_cut
        context.saved_cut = 0
        context.saved_valid = 0

    cdef int vcpu_put(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0 and c.owner != OWNER_GUEST + vcpu_index(s, v):
            return DONE
        return self.yield_guest(s, c, v, pc)

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        v.vmcs.debugctl = 0
        if c.perf.freezes:
            hw_set_debugctl(&c.hw, v.snapshot)
            v.snapshot = 0
        if c.owner == OWNER_GUEST + vcpu_index(s, v):
            v.ctl = v.vmcs.lbr_ctl
            v.vmcs.lbr_ctl = 0
        elif c.perf.granted:
            hw_set_ctl(&c.hw, c.perf.programmed)
        if self.mediated or c.owner == OWNER_GUEST + vcpu_index(s, v):
            if self.mediated:
                v.frozen = c.hw.lbr.frozen
            lbr_set_frozen(&c.hw.lbr, 0)
        return DONE

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        if self.lazy and (instruction == GUEST_ENABLE or instruction == GUEST_DISABLE
                          or instruction == GUEST_USER_FILTER):
            return True
        return Policy.exits(self, s, c, v, instruction)

    cdef int emulate(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """On the image: exits happen only while the registers are not the guest's, but for
        INIT and SMM, which touch the control register alone."""
        cdef int instruction = c.frame[c.frames - 1].arg
        v.uses = 1
        if instruction == GUEST_READ or instruction == GUEST_XSAVES:
            s.seen.image = v.image
            s.seen.image.ctl = v.ctl
            s.seen.cut = v.lost
            s.seen.exposure = (EXPOSED_XSAVES if instruction == GUEST_XSAVES
                               else EXPOSED_RDMSR)
        elif instruction == GUEST_WRITE:
            v.image.entry[0] = c.operand
        elif instruction == GUEST_DEPTH:
            memset(&v.image.entry[0], 0, sizeof(v.image.entry))
            if c.owner == OWNER_GUEST + vcpu_index(s, v):
                hw_reset_records(&c.hw)
            v.lost = 0
        elif instruction == GUEST_INIT:
            pass  # INIT leaves LBR_CTL and the records (spec 1.7)
        elif instruction == GUEST_SMI:
            v.smm = 1
            v.smm_ctl = v.ctl & CTL_LBREN
            v.ctl &= ~<unsigned long long> CTL_LBREN
        elif instruction == GUEST_RSM:
            v.smm = 0
            v.ctl |= v.smm_ctl
            v.smm_ctl = 0
        elif instruction == GUEST_DB:
            v.ctl &= ~<unsigned long long> CTL_LBREN
        elif instruction == GUEST_XRSTORS:
            guest_image(c, 0, v.image.depth, &v.image)
        elif instruction == GUEST_RESET:
            self.cold_reset(s, c, v)
        elif instruction == GUEST_FREEZE:
            v.debugctl |= DEBUGCTL_FREEZE_LBRS_ON_PMI
        elif instruction == GUEST_PMI:
            pass  # at the next entry
        elif instruction == GUEST_ACK:
            v.frozen = 0
        elif instruction == GUEST_VMLAUNCH or instruction == GUEST_VMLAUNCH_CONTROLS:
            nested_entry(v, instruction == GUEST_VMLAUNCH_CONTROLS, False)
        elif instruction == GUEST_VMCALL:
            nested_exit(v, False)
        elif instruction == GUEST_DEBUGCTL:
            v.vmcs12.debugctl = 0  # bit 0 always reads 0 (spec 1.7)
        else:
            v.ctl = guest_control(instruction, v.ctl, False)
        return DONE

    cdef void cold_reset(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """Of a vCPU (spec 1.7), by user space in the vCPU's own thread."""
        image_clear(&v.image)
        if c.owner == OWNER_GUEST + vcpu_index(s, v):
            hw_init(&c.hw)
        v.ctl = v.debugctl = v.smm_ctl = 0
        v.pmi = v.frozen = v.smm = v.level2 = v.lost = 0
        memset(&v.vmcs12, 0, sizeof(v.vmcs12))

    cdef void pmi(self, System* s, Cpu* c) noexcept nogil:
        self.read_host(s, c, c.perf.granted and c.perf.hosts > c.perf.pebs)
        c.perf.frozen = 0
        if self.lazy and self.mediated and not c.perf.granted:
            return              # the whole PMU is the guest's, LBR_FRZ too
        if c.owner < OWNER_GUEST or c.hw.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI:
            lbr_set_frozen(&c.hw.lbr, 0)

    cdef void read_host(self, System* s, Cpu* c, bint present) noexcept nogil:
        s.seen.present = present
        s.seen.cut = c.perf.cut or not present
        if present:
            hw_peek(&c.hw, &s.seen.image)

    cdef void pebs(self, System* s, Cpu* c) noexcept nogil:
        """MSR_PEBS_DATA_CFG.LBRS is set while perf is attached."""
        self.read_host(s, c, c.perf.granted)

    cdef void guest_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """A counter that is a perf event exits by NMI, and the host's handler acknowledges,
        LBR_FRZ with the rest; so KVM keeps the guest's.  A mediated one has a vector of its own,
        on which the host does nothing."""
        v.pmi = 1
        if self.mediated:
            return
        lbr_set_frozen(&c.hw.lbr, 0)
        if v.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI:
            v.frozen = 1

    cdef void save_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        s.seen.image = v.image
        s.seen.image.ctl = v.ctl
        s.seen.cut = v.lost

    cdef void restore_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        v.image = s.seen.image
        v.image.ctl = 0
        v.ctl = s.seen.image.ctl
        v.lost = s.seen.cut
        v.uses = 1

    cdef bint guest_traced(self, System* s, Cpu* c) noexcept nogil:
        return c.owner == OWNER_HOST and not c.perf.flags & EXCLUDE_GUEST
