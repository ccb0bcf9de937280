"""`arch-lbr-v2`: the series of November 2022, its review findings as switches (spec 7).

Without any, it is the series with every finding fixed: perf still takes the registers at
any IPI, and the guest is not notified.
"""

from functools import partial

from libc.string cimport memset

from pylbr.arbitration.microsteps cimport (
    Cpu, DONE, GUEST_DB, GUEST_DEBUGCTL, GUEST_DEPTH, GUEST_FREEZE, GUEST_INIT, GUEST_PEBS,
    GUEST_PMI, GUEST_READ, GUEST_RESET, GUEST_RSM, GUEST_SMI, GUEST_VMCALL, GUEST_VMLAUNCH,
    GUEST_VMLAUNCH_CONTROLS, GUEST_WRITE, GUEST_XRSTORS, GUEST_XSAVES, System, Vcpu,
    guest_control,
)
from pylbr.arbitration.pinned_event cimport PinnedEvent
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_FREEZE_LBRS_ON_PMI
from pylbr.cpu.hardware cimport hw_clear_ler, hw_restore, hw_set_ctl, hw_set_debugctl
from pylbr.host.perf cimport EXCLUDE_GUEST, FILTER_VLBR
from pylbr.kvm.nested cimport nested_entry, nested_exit

cdef enum Flaw:
    DEPTH_OUTSIDE_CHECK, RAW_DATA_MSRS, EXIT_CLEAR_ALWAYS, INIT_CLEARS, DB_IN_NMI_PATH
    RSM_CLOBBER, CTL_LOADED_WHEN_RECLAIMED, NO_DATA_MSRS_SAVED, NO_XSS_EXITING, LER_KEPT
    NO_ENTRY_LOAD, BOTH_SCHEDULED, LAZY_RELEASE, NESTED_DROPPED, VMCS12_DEBUGCTL, CTL_IN_VMCS
    LATE_FREEZE, PEBS_BASELINE, STALE_DEBUGCTL


cdef class ArchLbrV2(PinnedEvent):
    """ArchLbrV2(flaws=())\n--\n
    The pinned event, for architectural LBRs.

    Parameters
    ----------
    flaws : iterable of str
        Names out of `FLAWS`: bugs that the series has.
    """

    FLAWS = {
        "depth-outside-check": (DEPTH_OUTSIDE_CHECK, "patch 5: a DEPTH write reaches the "
                                "registers without «event ACTIVE?»"),
        "raw-data-msrs": (RAW_DATA_MSRS, "patch 14: intercepted data MSRs are read and written "
                          "raw"),
        "exit-clear-always": (EXIT_CLEAR_ALWAYS, "patch 10: exit clears LBR_CTL, the host's "
                              "value is not put back"),
        "init-clears": (INIT_CLEARS, "patch 12: INIT clears LBREn as if it were a warm reset"),
        "db-in-nmi-path": (DB_IN_NMI_PATH, "patch 12: LBREn is cleared in the NMI path, not "
                           "with the #DB"),
        "rsm-clobber": (RSM_CLOBBER, "patch 13: RSM restores the whole of LBR_CTL, not LBREn"),
        "ctl-loaded-when-reclaimed": (CTL_LOADED_WHEN_RECLAIMED, "entry loads the guest's "
                                      "LBR_CTL while perf has the registers"),
        "no-data-msrs-saved": (NO_DATA_MSRS_SAVED, "patch 8: user space saves CTL and DEPTH, "
                               "no record"),
        "no-xss-exiting": (NO_XSS_EXITING, "patch 11: XSAVES is not intercepted while perf has the "
                           "registers (found here)"),
        "ler-kept": (LER_KEPT, "a reset by DEPTH leaves LER, which XSAVES shows (found here)"),
        "no-entry-load": (NO_ENTRY_LOAD, "without entry control 21 the host's LBR_CTL records "
                          "in the guest"),
        "both-scheduled": (BOTH_SCHEDULED, "the event's constraint skips the shared filter "
                           "register, so perf schedules host events beside it"),
        "lazy-release": (LAZY_RELEASE, "the event is released at the next vcpu_load if LBREn is "
                         "0, and the records with it"),
        "nested-dropped": (NESTED_DROPPED, "patch 10: L1's VM entry with controls 21 and 26 "
                           "succeeds, the controls are cleared silently", "nested"),
        "vmcs12-debugctl": (VMCS12_DEBUGCTL, "patch 6: vmcs12 gets L2's DEBUGCTL before bit 0 "
                            "is stripped", "nested"),
        "ctl-in-vmcs": (CTL_IN_VMCS, "patch 6: LBR_CTL lives in the VMCS that is loaded; nothing "
                        "carries it between vmcs01 and vmcs02 (found here)", "nested"),
        "late-freeze": (LATE_FREEZE, "patch 6: LBREn is cleared when the PMI is injected; a state "
                        "that is saved before has it set (found here)", "vpmi"),
        "pebs-baseline": (PEBS_BASELINE, "PEBS_BASELINE is offered: a guest's PEBS records hold "
                          "the LBRs of any owner (CVE-2024-26992)", "pebs"),
        "stale-debugctl": (STALE_DEBUGCTL, "host DEBUGCTL is read at vcpu_load, interrupts on, as "
                           "KVM did until March 2025", "host-freeze"),
    }

    def __init__(self, flaws=()):
        self.name = "arch-lbr-v2"
        self.freeze_clears_enable = True
        self.set_flaws(flaws)
        self.claims = ()
        self.by_design = ("P20", "P20b") if self.has(BOTH_SCHEDULED) else ("P20b",)
        self.guest_pebs = self.has(PEBS_BASELINE)
        self.late_freeze = self.has(LATE_FREEZE)
        self.sharing = 0 if self.has(BOTH_SCHEDULED) else FILTER_VLBR

    cdef void reset(self, System* s, Cpu* c) noexcept nogil:
        PinnedEvent.reset(self, s, c)
        if not self.has(LER_KEPT):
            hw_clear_ler(&c.hw)

    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if c.perf.freezes and self.has(STALE_DEBUGCTL):
            v.snapshot = c.hw.debugctl
        return PinnedEvent.vcpu_load(self, s, c, v, pc) if self.has(LAZY_RELEASE) else DONE

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if c.perf.freezes and not self.has(STALE_DEBUGCTL):
            v.snapshot = c.hw.debugctl
        v.passthrough = self.active(s, v)
        v.pebs_lbrs = self.guest_pebs
        v.xss_exit = not v.passthrough and not self.has(NO_XSS_EXITING)
        v.vmcs.load_lbr_ctl = not self.has(NO_ENTRY_LOAD)
        v.vmcs.clear_lbr_ctl = 1
        v.vmcs.debugctl = v.debugctl
        v.vmcs.lbr_ctl = v.ctl if v.passthrough or self.has(CTL_LOADED_WHEN_RECLAIMED) else 0
        if c.perf.hosts and not c.perf.vlbr and not c.perf.flags & EXCLUDE_GUEST:
            v.vmcs.load_lbr_ctl = v.vmcs.clear_lbr_ctl = self.has(CTL_LOADED_WHEN_RECLAIMED)
        return DONE

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        v.vmcs.lbr_ctl = v.vmcs.debugctl = 0
        if v.snapshot:
            hw_set_debugctl(&c.hw, v.snapshot)
        if not self.has(STALE_DEBUGCTL):
            v.snapshot = 0
        if c.perf.programmed and not self.has(EXIT_CLEAR_ALWAYS):
            hw_set_ctl(&c.hw, c.perf.programmed)
        return DONE

    cdef void _nested(self, Vcpu* v, int instruction) noexcept nogil:
        """The controls are hidden from L1: a VM entry with them fails."""
        cdef unsigned long long ctl = v.ctl
        if instruction == GUEST_DEBUGCTL:
            v.vmcs12.debugctl = self.has(VMCS12_DEBUGCTL)
            return
        if instruction == GUEST_VMLAUNCH_CONTROLS and not self.has(NESTED_DROPPED):
            return
        if self.has(CTL_IN_VMCS):
            v.ctl = v.other_ctl
            v.other_ctl = ctl
        if instruction == GUEST_VMCALL:
            nested_exit(v, False)
        else:
            nested_entry(v, False, False)

    cdef void _event_or_control(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        """INIT, SMM, #DB and writes of LBR_CTL."""
        if instruction == GUEST_INIT:
            if self.has(INIT_CLEARS):
                v.ctl &= ~<unsigned long long> CTL_LBREN
        elif instruction == GUEST_SMI:
            v.smm = 1
            v.smm_ctl = v.ctl if self.has(RSM_CLOBBER) else v.ctl & CTL_LBREN
            v.ctl &= ~<unsigned long long> CTL_LBREN
        elif instruction == GUEST_RSM:
            v.smm = 0
            v.ctl = v.smm_ctl if self.has(RSM_CLOBBER) else v.ctl | v.smm_ctl
            v.smm_ctl = 0
        elif instruction == GUEST_DB:
            if not self.has(DB_IN_NMI_PATH):
                v.ctl &= ~<unsigned long long> CTL_LBREN
        elif instruction == GUEST_FREEZE:
            v.debugctl |= DEBUGCTL_FREEZE_LBRS_ON_PMI
        elif instruction == GUEST_RESET:
            self.vpmu_reset(s, c, v)
        elif instruction == GUEST_PMI:
            pass  # at the next entry
        elif instruction >= GUEST_VMLAUNCH:
            self._nested(v, instruction)
        else:
            v.ctl = guest_control(instruction, v.ctl, False)
            if v.ctl & CTL_LBREN:
                self.create(s, c, v)

    cdef int emulate(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        cdef int instruction = c.frame[c.frames - 1].arg
        cdef bint data = (instruction == GUEST_READ or instruction == GUEST_WRITE
                          or instruction == GUEST_XSAVES or instruction == GUEST_DEPTH
                          or instruction == GUEST_XRSTORS)
        cdef bint raw
        if not data:
            self._event_or_control(s, c, v, instruction)
            return DONE
        if pc == 0:
            self.create(s, c, v)
            return 1
        raw = (self.has(DEPTH_OUTSIDE_CHECK) if instruction == GUEST_DEPTH
               else self.has(RAW_DATA_MSRS) and instruction <= GUEST_WRITE)
        self.access(s, c, v, raw or self.active(s, v))
        return DONE

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        if instruction == GUEST_XSAVES or instruction == GUEST_XRSTORS:
            return v.xss_exit
        if instruction == GUEST_PEBS:
            return False
        return (instruction != GUEST_READ and instruction != GUEST_WRITE) or not v.passthrough

    cdef void save_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        PinnedEvent.save_state(self, s, c, v)
        if self.has(NO_DATA_MSRS_SAVED):
            memset(&s.seen.image.entry[0], 0, sizeof(s.seen.image.entry))

    cdef void restore_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        v.ctl = s.seen.image.ctl
        self.create(s, c, v)
        if self.active(s, v):
            s.seen.image.ctl = 0
            s.seen.image.depth = s.depth
            hw_restore(&c.hw, &s.seen.image)
            s.seen.image.ctl = v.ctl


POLICIES = {
    "arch-lbr-v2": partial(
        ArchLbrV2, flaws=frozenset(ArchLbrV2.FLAWS) - {"no-entry-load", "pebs-baseline"}),
    "arch-lbr-v2-fixed": ArchLbrV2,
}
