"""Policies in which the registers have one owner at a time.

The registers pass from one to the next only empty: who leaves saves what it needs and wipes.
perf does not take them; it is attached when they are free, and asks (`Cpu.wanted`) if not.
A guest's records live in `Vcpu.image` whenever they are not in the registers; accesses that
are intercepted go there and never to the registers.
"""

from libc.string cimport memset

from lbrcore.control cimport lbr_set_frozen
from pylbr.arbitration.microsteps cimport (
    DONE, DOOR_GUEST_MSR, DOOR_GUEST_XSAVES, FAIL_IDEMPOTENT, GUEST_ACK, GUEST_DB,
    GUEST_DEBUGCTL, GUEST_DEPTH, GUEST_FREEZE, GUEST_INIT, GUEST_PMI, GUEST_READ, GUEST_RESET,
    GUEST_RSM, GUEST_SMI, GUEST_VMCALL, GUEST_VMLAUNCH, GUEST_VMLAUNCH_CONTROLS, GUEST_WRITE,
    GUEST_XRSTORS, GUEST_XSAVES, OWNER_GUEST, OWNER_HOST, OWNER_NONE, current_context,
    guest_control, guest_image, use_hardware, vcpu_index,
)
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_FREEZE_LBRS_ON_PMI
from pylbr.cpu.hardware cimport (
    hw_init, hw_peek, hw_reset_records, hw_restore, hw_save, hw_set_ctl, image_clear,
)
from pylbr.host.perf cimport (
    CALL_STACK, EXCLUDE_GUEST, FRESH_FLAGS, PerfContext, perf_control, perf_deschedule,
    perf_disable, perf_enable, perf_schedule,
)
from pylbr.kvm.nested cimport nested_entry, nested_exit

#: Guards that can be left out, each with what then is missing.
GUARDS = {
    "no-wipe": (NO_WIPE, "registers are handed on as they are"),
    "wipe-by-depth": (WIPE_BY_DEPTH, "wipe by a write of DEPTH alone, which leaves LER"),
    "xsaves-door": (XSAVES_DOOR, "XSS-exiting bitmap is left 0: XSAVES reads the registers"),
    "keep-clear-off": (KEEP_CLEAR_OFF, "exit does not clear LBR_CTL of a guest that owns"),
    "no-restore-ctl": (NO_RESTORE_CTL, "host's LBR_CTL is not put back after exit"),
    "no-pause-clear": (NO_PAUSE_CLEAR, "image keeps old records while branches are missed"),
    "guest-runs-host-ctl": (GUEST_RUNS_HOST_CTL, "entry leaves the host's LBR_CTL on"),
    "no-reset-at-switch": (NO_RESET_AT_SWITCH, "perf's records survive a task switch"),
    "steal-in-irq": (STEAL_IN_IRQ, "perf takes the registers in the IPI"),
    "keep-passthrough": (KEEP_PASSTHROUGH, "interception is not switched back on"),
    "no-recheck": (NO_RECHECK, "requests are not looked at again with interrupts off"),
    "keep-wanted": (KEEP_WANTED, "a closed event's request is not withdrawn"),
    "no-attach-at-put": (NO_ATTACH_AT_PUT, "the vCPU leaves, perf is not attached"),
    "restore-loads-ctl": (RESTORE_LOADS_CTL, "XRSTORS loads the guest's LBREn in the host"),
    "keep-enabled": (KEEP_ENABLED, "perf's LBR_CTL stays on when it is detached"),
    "no-save": (NO_SAVE, "the guest's records are not saved"),
    "no-reset-at-change": (NO_RESET_AT_CHANGE, "records stay when perf turns to events that ask "
                           "for something else"),
    "drop-ctl": (DROP_CTL, "the guest's LBR_CTL is not fetched from the VMCS after exit"),
    "nested-no-controls": (NESTED_NO_CONTROLS, "vmcs02 has L1's controls alone, neither 21 nor 26",
                           "nested"),
    "nested-keep-ctl": (NESTED_KEEP_CTL, "L1 goes on with L2's LBR_CTL in spite of control 26",
                        "nested"),
    "nested-no-load": (NESTED_NO_LOAD, "L2 goes on with L1's LBR_CTL in spite of control 21",
                       "nested"),
    "pmi-no-freeze": (PMI_NO_FREEZE, "a PMI freezes nothing of a version 4 vPMU, as in merged code",
                      "vpmi"),
    "no-refreeze": (NO_REFREEZE, "LBR_FRZ of the guest is not set again at VM entry", "vpmi"),
    "keep-frozen": (KEEP_FROZEN, "LBR_FRZ of the guest stays set in the host", "vpmi"),
    "ack-by-host": (ACK_BY_HOST, "the host's PMI handler acknowledges the guest's LBR_FRZ", "vpmi"),
    "drop-debugctl": (DROP_DEBUGCTL, "the guest's DEBUGCTL is not loaded at VM entry", "vpmi"),
    "drop-frozen": (DROP_FROZEN, "LBR_FRZ that the hardware has set is not read at VM exit",
                    "vpmi"),
    "pebs-door": (PEBS_DOOR, "a guest without the registers keeps MSR_PEBS_DATA_CFG.LBRS", "pebs"),
    "keep-pebs": (KEEP_PEBS, "detached perf keeps MSR_PEBS_DATA_CFG.LBRS", "pebs"),
    "reset-keeps-records": (RESET_KEEPS_RECORDS, "a reset of the vCPU clears the image alone, not "
                            "the registers that it owns", "reset"),
    "stale-stack": (STALE_STACK, "what a task's event saved is restored again and again", "stack"),
    "silent-stack": (SILENT_STACK, "a window that was cut in an earlier turn of the task is not "
                     "marked", "stack"),
}


cdef class SingleOwner(Policy):
    """What `request`, `mediated` and `lease` share."""

    cdef void wipe(self, System* s, Cpu* c) noexcept nogil:
        """Empty registers that nobody owns any more."""
        if self.has(NO_WIPE):
            return
        if self.has(WIPE_BY_DEPTH):
            hw_reset_records(&c.hw)
        else:
            hw_init(&c.hw)

    cdef void attach(self, System* s, Cpu* c) noexcept nogil:
        """perf gets registers that nobody owns."""
        if c.perf.granted:
            s.seen.failures |= FAIL_IDEMPOTENT
        c.owner = OWNER_HOST
        c.perf.granted = 1
        perf_enable(&c.perf, &c.hw)
        c.wanted = 0

    cdef void detach(self, System* s, Cpu* c) noexcept nogil:
        """perf leaves the registers."""
        c.perf.granted = 0
        if not self.has(KEEP_ENABLED):
            perf_disable(&c.perf, &c.hw)
        c.perf.programmed = 0
        self.wipe(s, c)
        c.owner = OWNER_NONE

    cdef void load_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """Guest gets registers that nobody owns; LBREn waits for VM entry."""
        c.owner = <uint8_t> (OWNER_GUEST + vcpu_index(s, v))
        v.image.ctl = v.ctl if self.has(RESTORE_LOADS_CTL) else 0
        hw_restore(&c.hw, &v.image)

    cdef void save_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        use_hardware(s, c, OWNER_GUEST + vcpu_index(s, v))
        if not self.has(NO_SAVE):
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
        if c.perf.hosts and not self.has(NO_ATTACH_AT_PUT):
            self.attach(s, c)
        c.irqs = c.scratch
        c.scratch = 0
        return DONE

    cdef void admit(self, Cpu* c, Vcpu* v) noexcept nogil:
        """The guest enters as owner."""
        if v.frozen and not self.has(NO_REFREEZE):
            lbr_set_frozen(&c.hw.lbr, 1)  # IA32_PERF_GLOBAL_STATUS_SET
        v.vmcs.debugctl = 0 if self.has(DROP_DEBUGCTL) else v.debugctl
        v.passthrough = v.pebs_lbrs = 1
        v.xss_exit = 0
        v.vmcs.lbr_ctl = v.ctl
        v.vmcs.load_lbr_ctl = 1
        v.vmcs.clear_lbr_ctl = not self.has(KEEP_CLEAR_OFF)
        if v.level2 and self.has(NESTED_NO_CONTROLS):
            v.vmcs.load_lbr_ctl = v.vmcs.clear_lbr_ctl = 0

    cdef void keep_out(self, Cpu* c, Vcpu* v) noexcept nogil:
        """The guest enters without the registers.  If it records, its records break off
        here; an empty stack says so."""
        if not self.has(KEEP_PASSTHROUGH):
            v.passthrough = 0
        v.xss_exit = not self.has(XSAVES_DOOR)
        v.pebs_lbrs = self.has(PEBS_DOOR)
        v.vmcs.debugctl = 0 if self.has(DROP_DEBUGCTL) else v.debugctl
        if v.ctl & CTL_LBREN and not v.frozen and not self.has(NO_PAUSE_CLEAR):
            image_clear(&v.image)
            v.lost = self.guest_flag
        v.vmcs.lbr_ctl = 0
        v.vmcs.clear_lbr_ctl = 0
        v.vmcs.load_lbr_ctl = not self.has(GUEST_RUNS_HOST_CTL)
        if c.perf.granted and not c.perf.flags & EXCLUDE_GUEST:
            v.vmcs.load_lbr_ctl = 0
        if v.level2 and self.has(NESTED_NO_CONTROLS):
            v.vmcs.load_lbr_ctl = 0

    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil:
        if not c.perf.hosts:
            if c.perf.granted:
                self.detach(s, c)
            if not self.has(KEEP_WANTED):
                c.wanted = 0
        elif c.perf.granted:
            if c.perf.fresh & FRESH_FLAGS and not self.has(NO_RESET_AT_CHANGE):
                hw_reset_records(&c.hw)
            if c.perf.programmed != perf_control(&c.perf, &c.hw):
                perf_enable(&c.perf, &c.hw)
        elif c.owner == OWNER_NONE or self.has(STEAL_IN_IRQ):
            self.attach(s, c)
        else:
            c.wanted = 1

    cdef void task_out(self, System* s, Cpu* c) noexcept nogil:
        """Records of call-stack events go with their task."""
        cdef PerfContext* context = current_context(s, c)
        if c.perf.granted and c.perf.flags & CALL_STACK:
            hw_save(&c.hw, &context.saved)
            context.saved_valid = 1
        elif not self.has(STALE_STACK):
            context.saved_valid = 0
        context.saved_cut = (c.perf.flags & CALL_STACK) != 0 and (c.perf.cut or not c.perf.granted)
        perf_deschedule(context)
        perf_schedule(&c.perf, NULL, self.sharing)
        self.perf_update(s, c)

    cdef void task_in(self, System* s, Cpu* c) noexcept nogil:
        cdef PerfContext* context = current_context(s, c)
        perf_schedule(&c.perf, context, self.sharing)
        self.perf_update(s, c)
        if c.perf.granted and not self.has(NO_RESET_AT_SWITCH):
            hw_reset_records(&c.hw)
            c.perf.cut = 0
            if c.perf.flags & CALL_STACK and context.saved_valid:
                context.saved.ctl = c.perf.programmed
                hw_restore(&c.hw, &context.saved)
        if c.perf.flags & CALL_STACK and not self.has(SILENT_STACK):
            c.perf.cut |= context.saved_cut
        context.saved_cut = 0
        if not self.has(STALE_STACK):
            context.saved_valid = 0

    cdef int vcpu_put(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0 and c.owner != OWNER_GUEST + vcpu_index(s, v):
            return DONE
        return self.yield_guest(s, c, v, pc)

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        v.vmcs.debugctl = 0
        if c.owner == OWNER_GUEST + vcpu_index(s, v):
            if not self.has(DROP_CTL):
                v.ctl = v.vmcs.lbr_ctl
            v.vmcs.lbr_ctl = 0
            if self.mediated and not self.has(DROP_FROZEN):
                v.frozen = c.hw.lbr.frozen
            if not self.has(KEEP_FROZEN):
                lbr_set_frozen(&c.hw.lbr, 0)
        elif c.perf.granted and not self.has(NO_RESTORE_CTL):
            hw_set_ctl(&c.hw, c.perf.programmed)
        return DONE

    cdef int emulate(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """On the image: exits happen only while the registers are not the guest's, but for
        INIT and SMM, which touch the control register alone."""
        cdef int instruction = c.frame[c.frames - 1].arg
        v.uses = 1
        if instruction == GUEST_READ or instruction == GUEST_XSAVES:
            s.seen.image = v.image
            s.seen.image.ctl = v.ctl
            s.seen.cut = v.lost
            s.seen.door = (DOOR_GUEST_XSAVES if instruction == GUEST_XSAVES
                           else DOOR_GUEST_MSR)
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
            nested_entry(v, instruction == GUEST_VMLAUNCH_CONTROLS, False,
                         self.has(NESTED_NO_LOAD))
        elif instruction == GUEST_VMCALL:
            nested_exit(v, False, self.has(NESTED_KEEP_CTL))
        elif instruction == GUEST_DEBUGCTL:
            v.vmcs12.debugctl = 0  # bit 0 always reads 0 (spec 1.7)
        else:
            v.ctl = guest_control(instruction, v.ctl, False)
        return DONE

    cdef void cold_reset(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """Of a vCPU (spec 1.7), by user space in the vCPU's own thread."""
        image_clear(&v.image)
        if (c.owner == OWNER_GUEST + vcpu_index(s, v)
                and not self.has(RESET_KEEPS_RECORDS)):
            hw_init(&c.hw)
        v.ctl = v.debugctl = v.smm_ctl = 0
        v.pmi = v.frozen = v.smm = v.level2 = v.lost = 0
        memset(&v.vmcs12, 0, sizeof(v.vmcs12))

    cdef void pmi(self, System* s, Cpu* c) noexcept nogil:
        self.read_host(s, c, c.perf.granted and c.perf.hosts > c.perf.pebs)
        if c.owner < OWNER_GUEST or self.has(ACK_BY_HOST):
            lbr_set_frozen(&c.hw.lbr, 0)

    cdef void read_host(self, System* s, Cpu* c, bint present) noexcept nogil:
        s.seen.present = present
        s.seen.cut = c.perf.cut or not present
        if present:
            hw_peek(&c.hw, &s.seen.image)

    cdef void pebs(self, System* s, Cpu* c) noexcept nogil:
        """MSR_PEBS_DATA_CFG.LBRS is set while perf is attached."""
        self.read_host(s, c, c.perf.granted or self.has(KEEP_PEBS))

    cdef void guest_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """A counter that is a perf event exits by NMI, and the host's handler acknowledges,
        LBR_FRZ with the rest; so KVM keeps the guest's.  A mediated one has a vector of its own,
        on which the host does nothing."""
        v.pmi = 1
        if self.mediated:
            return
        lbr_set_frozen(&c.hw.lbr, 0)
        if v.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI and not self.has(PMI_NO_FREEZE):
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
