"""`kvm-legacy`: what Linux has merged for legacy LBRs (spec 6).

*As designed*, a host event that is pinned to the CPU outranks the guest's, which goes to ERROR
and is not enabled again; a flexible one does not.  *As implemented*, the
guest event's constraint returns before the shared filter register is looked at: both are
scheduled, and host LBRs stay off for as long as the guest has its event.
"""

from functools import partial

from pylbr.arbitration.microsteps cimport (
    Cpu, DONE, GUEST_DB, GUEST_DISABLE, GUEST_ENABLE, GUEST_FREEZE, GUEST_INIT, GUEST_PEBS,
    GUEST_PMI, GUEST_RESET, GUEST_USER_FILTER, GUEST_VMCALL, GUEST_VMLAUNCH,
    GUEST_VMLAUNCH_CONTROLS,
    OWNER_GUEST, System, Vcpu, guest_control, use_hardware, vcpu_index,
)
from pylbr.arbitration.pinned_event cimport PinnedEvent
from pylbr.arch.bits cimport DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport hw_set_ctl, hw_set_debugctl
from pylbr.host.perf cimport FILTER_VLBR
from pylbr.kvm.nested cimport nested_entry, nested_exit

cdef enum Flaw:
    STALE_SNAPSHOT, CHECK_WITH_IRQS_ON, HOST_PMI_FREEZES, PEBS_BASELINE


cdef class KvmLegacy(PinnedEvent):
    """KvmLegacy(flaws=(), designed=False, keeps_debugctl=False)\n--\n
    The pinned event; the guest's DEBUGCTL is loaded at every entry, whichever side owns the LBRs.

    Parameters
    ----------
    flaws : iterable of str
        Names out of `FLAWS`: bugs that the code has or had.
    designed : bool
        The event goes through the shared filter register, as its authors describe it.
    keeps_debugctl : bool
        User space saves and restores IA32_DEBUGCTL, as in 6.12.
    """

    FLAWS = {
        "stale-snapshot": (STALE_SNAPSHOT, "host DEBUGCTL is read at vcpu_load, interrupts on "
                           "(before the fix of March 2025)"),
        "check-with-irqs-on": (CHECK_WITH_IRQS_ON, "interrupts are on between «event ACTIVE?» "
                               "and the access"),
        "host-pmi-freezes": (HOST_PMI_FREEZES, "the guest's DEBUGCTL is the VMCS field: a PMI of "
                             "the host in guest mode clears LBR there (found here)", "vpmi"),
        "pebs-baseline": (PEBS_BASELINE, "PEBS_BASELINE is offered: a guest's PEBS records hold "
                          "the LBRs of any owner (CVE-2024-26992)", "pebs"),
    }

    def __init__(self, flaws=(), bint designed=False, bint keeps_debugctl=False):
        self.name = ("kvm-legacy-designed" if designed else
                     "kvm-legacy-6.12" if keeps_debugctl else "kvm-legacy")
        self.keeps_debugctl = keeps_debugctl
        self.late_freeze = True
        self.legacy = self.nested_controls = self.freeze_clears_enable = True
        self.sharing = FILTER_VLBR if designed else 0
        self.claims = ()
        self.set_flaws(flaws)
        self.by_design = (("P20b",) if designed or self.has(STALE_SNAPSHOT)
                          else ("P20", "P20b"))
        self.guest_pebs = self.has(PEBS_BASELINE)

    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if self.has(STALE_SNAPSHOT):
            v.snapshot = c.hw.debugctl
        return PinnedEvent.vcpu_load(self, s, c, v, pc)

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if not self.has(STALE_SNAPSHOT):
            v.snapshot = c.hw.debugctl
        v.passthrough = self.active(s, v)
        v.pebs_lbrs = self.guest_pebs
        v.vmcs.debugctl = v.debugctl
        return DONE

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if self.has(HOST_PMI_FREEZES):
            v.debugctl = v.vmcs.debugctl
        v.vmcs.debugctl = 0
        if v.snapshot:
            hw_set_debugctl(&c.hw, v.snapshot)
        if not self.has(STALE_SNAPSHOT):
            v.snapshot = 0
        return DONE

    cdef int emulate(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """vmx_set_msr of DEBUGCTL, or intel_pmu_handle_lbr_msrs_access."""
        cdef int instruction = c.frame[c.frames - 1].arg
        if instruction == GUEST_ENABLE or instruction == GUEST_DISABLE:
            if instruction == GUEST_ENABLE:
                v.debugctl |= DEBUGCTL_LBR
                self.create(s, c, v)
            else:
                v.debugctl &= ~<unsigned long long> DEBUGCTL_LBR
            return DONE
        if instruction == GUEST_PMI or instruction == GUEST_INIT or instruction == GUEST_DB:
            return DONE  # a #DB is intercepted and injected again: DEBUGCTL.LBR stays
        if instruction == GUEST_RESET:
            self.vpmu_reset(s, c, v)
            return DONE
        if instruction == GUEST_FREEZE:
            v.debugctl |= DEBUGCTL_FREEZE_LBRS_ON_PMI
            return DONE
        if instruction == GUEST_VMLAUNCH or instruction == GUEST_VMLAUNCH_CONTROLS:
            nested_entry(v, instruction == GUEST_VMLAUNCH_CONTROLS, True)
            return DONE
        if instruction == GUEST_VMCALL:
            nested_exit(v, True)
            return DONE
        if pc == 0:
            self.create(s, c, v)
            return 1
        if pc == 1 and self.has(CHECK_WITH_IRQS_ON):
            c.scratch = self.active(s, v)
            return 2
        if pc == 1:
            c.scratch = self.active(s, v)
        self.access(s, c, v, c.scratch)
        if instruction == GUEST_USER_FILTER and c.scratch:
            use_hardware(s, c, OWNER_GUEST + vcpu_index(s, v))
            hw_set_ctl(&c.hw, guest_control(instruction, 0, True))
        c.scratch = 0
        return DONE

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        if instruction == GUEST_PEBS:
            return False
        return (instruction == GUEST_ENABLE or instruction == GUEST_DISABLE
                or instruction >= GUEST_INIT or not v.passthrough)

    cdef void save_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """No LBR MSR is in the list that user space saves; since 6.12 IA32_DEBUGCTL is."""
        self.release(s, c, v)

    cdef void restore_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        if v.debugctl & DEBUGCTL_LBR:  # vmx_set_msr
            self.create(s, c, v)


POLICIES = {
    "kvm-legacy": KvmLegacy,
    "kvm-legacy-6.12": partial(KvmLegacy, keeps_debugctl=True),
    "kvm-legacy-2024": partial(KvmLegacy, flaws={"stale-snapshot", "pebs-baseline"}),
    "kvm-legacy-designed": partial(KvmLegacy, designed=True),
}
