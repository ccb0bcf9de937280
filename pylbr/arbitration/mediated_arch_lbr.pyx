"""`mediated-arch-lbr`: architectural LBRs on the mediated PMU, as a public kernel tree has them.

The guest gets the PMU shortly before VM entry and gives it back shortly after VM exit.  Its LBR
MSRs are passed through lazily: from its first write of LBREn = 1 until it clears the bit, by an
intercepted write of IA32_LBR_CTL each time.  Only while they are passed through are the records
loaded, by XRSTORS, and saved, by XSAVES, and then a write of IA32_LBR_DEPTH resets the registers.
Otherwise accesses go to the image of XSAVES.  The access function has no LER register, and a write
of DEPTH, which is always intercepted, clears the image.

Only what that file states is modelled with its faults.  What stands elsewhere in the tree (SMM,
#DB, INIT, nested guests, what a reset does to LBR_CTL) is modelled as it should be.  The
XSS-exiting bitmap is 0, as in merged KVM (vmx.c: init_vmcs).

`Vcpu.uses` stands for XSTATE_BV[15] of the image.
"""

from functools import partial

from libc.string cimport memset

from lbrcore.control cimport lbr_set_frozen
from pylbr.arbitration.microsteps cimport (
    DONE, EXPOSED_RDMSR, EXPOSED_XSAVES, GUEST_ACK, GUEST_DEPTH, GUEST_DISABLE, GUEST_ENABLE,
    GUEST_PEBS, GUEST_READ, GUEST_RESET, GUEST_USER_FILTER, GUEST_WRITE, GUEST_XRSTORS,
    GUEST_XSAVES, OWNER_GUEST, OWNER_NONE, Cpu, System, Vcpu, guest_control, guest_image,
    use_hardware, vcpu_index,
)
from pylbr.arbitration.single_owner cimport SingleOwner
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_FREEZE_LBRS_ON_PMI
from pylbr.cpu.hardware cimport (
    Image, hw_init, hw_reset_records, hw_restore, hw_save, hw_set_debugctl, image_empty,
)
from pylbr.host.perf cimport FILTER_EXCLUSION, FRESH_USER, perf_disable

cdef enum Flaw:
    LER_KEPT, RECORDS_LEFT, NO_XSS_EXITING, GUEST_PEBS_LBRS, NO_XSTATE_BV, NO_LER_SAVED,
    RESET_KEEPS_IMAGE


cdef class MediatedArchLbr(SingleOwner):
    """MediatedArchLbr(flaws=())\n--\n
    Swap the facility at VM entry and exit while the guest has LBREn set, and not otherwise.

    Parameters
    ----------
    flaws : iterable of str
        Names out of `FLAWS`: bugs that the code has.

    Attributes
    ----------
    flaws : frozenset of str
    """

    FLAWS = {
        "ler-kept": (LER_KEPT, "put resets the registers by a write of DEPTH, which leaves LER"),
        "records-left": (RECORDS_LEFT, "perf's records stay in the registers of a guest that is "
                         "not passed through"),
        "no-xss-exiting": (NO_XSS_EXITING, "XSAVES and XRSTORS of a guest that is not passed "
                           "through reach the registers: the XSS-exiting bitmap is 0"),
        "guest-pebs-lbrs": (GUEST_PEBS_LBRS, "a guest that is not passed through keeps "
                            "MSR_PEBS_DATA_CFG.LBRS", "pebs"),
        "no-xstate-bv": (NO_XSTATE_BV, "the access function writes the image and leaves "
                         "XSTATE_BV[15] 0: XRSTORS initialises the records instead"),
        "no-ler-saved": (NO_LER_SAVED, "user space cannot save LER: the access function has no "
                         "such register"),
        "reset-keeps-image": (RESET_KEEPS_IMAGE, "a reset of the vPMU leaves the image", "reset"),
    }

    def __init__(self, flaws=()):
        self.flaws = frozenset(flaws)
        for name in self.flaws:
            self.flaw_bits |= <uint64_t> 1 << <int> self.FLAWS[name][0]
        self.name = "mediated-arch-lbr" if self.flaws else "mediated-arch-lbr-fixed"
        if self.flaws == frozenset(self.FLAWS):
            self.claims = ()
            self.by_design = ("P20b",)
        self.host_short = self.mediated = self.lazy = True
        self.refuses_guest_tracing = True
        self.sharing = FILTER_EXCLUSION
        self.nested_controls = self.guest_pebs = True

    cdef bint has(self, int flaw) noexcept nogil:
        """Is this bug in?"""
        return (self.flaw_bits >> flaw) & 1

    # perf's side

    cdef void wipe(self, System* s, Cpu* c) noexcept nogil:
        if self.has(LER_KEPT):
            hw_reset_records(&c.hw)
        else:
            hw_init(&c.hw)

    cdef void detach(self, System* s, Cpu* c) noexcept nogil:
        """perf_load_guest_context, or the last event closes: perf clears no record."""
        c.perf.granted = 0
        perf_disable(&c.perf, &c.hw)
        c.perf.programmed = 0
        if not self.has(RECORDS_LEFT):
            self.wipe(s, c)
        c.owner = OWNER_NONE

    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil:
        """intel_pmu_lbr_add resets for a first, new user."""
        if self.has(RECORDS_LEFT) and c.perf.fresh & FRESH_USER:
            hw_reset_records(&c.hw)
        SingleOwner.perf_update(self, s, c)

    # KVM's side

    cdef void load_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """XRSTORS: of a component whose XSTATE_BV bit is 0 it makes the initial state."""
        c.owner = <uint8_t> (OWNER_GUEST + vcpu_index(s, v))
        v.image.ctl = 0
        if v.uses:
            hw_restore(&c.hw, &v.image)
        else:
            hw_init(&c.hw)

    cdef void save_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """XSAVES: a component in its initial state is not written."""
        cdef Image image
        use_hardware(s, c, OWNER_GUEST + vcpu_index(s, v))
        memset(&image, 0, sizeof(image))
        hw_save(&c.hw, &image)
        image.ctl = 0
        v.uses = not image_empty(&image) or image.ler.from_ != 0
        if v.uses or not self.has(NO_XSTATE_BV):
            v.image = image

    cdef void admit(self, Cpu* c, Vcpu* v) noexcept nogil:
        """The controls are set for every guest that has the feature; the rest as it is used."""
        if c.perf.freezes:
            v.snapshot = c.hw.debugctl
        if v.frozen:
            lbr_set_frozen(&c.hw.lbr, 1)  # IA32_PERF_GLOBAL_STATUS_SET
        v.pebs_lbrs = v.passthrough or self.has(GUEST_PEBS_LBRS)
        v.xss_exit = not (v.passthrough or self.has(NO_XSS_EXITING))
        v.vmcs.debugctl = v.debugctl
        v.vmcs.lbr_ctl = v.ctl
        v.vmcs.load_lbr_ctl = v.vmcs.clear_lbr_ctl = 1

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0:
            if c.perf.granted:
                self.detach(s, c)
                c.wanted = 1
            c.pmi = 0           # IA32_PERF_GLOBAL_STATUS is switched, LBR_FRZ with the rest
            lbr_set_frozen(&c.hw.lbr, 0)
            return 1
        if v.passthrough:
            self.load_guest(s, c, v)
        self.admit(c, v)
        return DONE

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0:
            v.ctl = v.vmcs.lbr_ctl
            v.vmcs.lbr_ctl = v.vmcs.debugctl = 0
            v.frozen = c.hw.lbr.frozen
            lbr_set_frozen(&c.hw.lbr, 0)
            if c.perf.freezes:
                hw_set_debugctl(&c.hw, v.snapshot)
                v.snapshot = 0
            if not v.passthrough:
                if c.perf.hosts:
                    self.attach(s, c)
                return DONE
        return self.yield_guest(s, c, v, pc)

    cdef void deliver_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """intel_pmu_freeze_lbr_on_pmi; the processor has frozen already."""
        if v.passthrough and v.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI:
            v.frozen = 1

    cdef int emulate(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """mediated_pmu_handle_lbr_msrs_access, on the image."""
        cdef int instruction = c.frame[c.frames - 1].arg
        cdef uint8_t uses = v.uses
        if instruction == GUEST_READ or instruction == GUEST_XSAVES:
            s.seen.image = v.image
            s.seen.image.ctl = v.ctl
            s.seen.exposure = (EXPOSED_XSAVES if instruction == GUEST_XSAVES
                               else EXPOSED_RDMSR)
        elif instruction == GUEST_WRITE:
            v.image.entry[0] = c.operand
            v.uses |= not self.has(NO_XSTATE_BV)
        elif instruction == GUEST_XRSTORS:
            guest_image(c, 0, v.image.depth, &v.image)
            v.uses = 1
        elif instruction == GUEST_DEPTH:
            memset(&v.image.entry[0], 0, sizeof(v.image.entry))
        elif (instruction == GUEST_ENABLE or instruction == GUEST_DISABLE
              or instruction == GUEST_USER_FILTER):
            v.ctl = guest_control(instruction, v.ctl, False)
            v.passthrough = v.ctl & CTL_LBREN
        elif instruction == GUEST_RESET and self.has(RESET_KEEPS_IMAGE):
            v.ctl = v.debugctl = v.smm_ctl = 0
            v.pmi = v.frozen = v.smm = v.level2 = 0
            memset(&v.vmcs12, 0, sizeof(v.vmcs12))
        elif instruction == GUEST_RESET:
            self.cold_reset(s, c, v)
            v.passthrough = v.uses = 0
        else:
            SingleOwner.emulate(self, s, c, v, pc)
            v.uses = uses
            v.passthrough |= v.ctl & CTL_LBREN
        return DONE

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        if instruction == GUEST_XSAVES or instruction == GUEST_XRSTORS:
            return v.xss_exit
        if instruction == GUEST_PEBS or instruction == GUEST_ACK:
            return False
        if instruction == GUEST_READ or instruction == GUEST_WRITE:
            return not v.passthrough
        return True

    cdef void save_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """KVM_GET_MSRS."""
        s.seen.image = v.image
        s.seen.image.ctl = v.ctl
        if self.has(NO_LER_SAVED):
            memset(&s.seen.image.ler, 0, sizeof(s.seen.image.ler))

    cdef void restore_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """KVM_SET_MSRS in a new vCPU."""
        v.image = s.seen.image
        v.image.ctl = 0
        v.ctl = s.seen.image.ctl
        v.passthrough = v.ctl & CTL_LBREN
        v.uses = not self.has(NO_XSTATE_BV)


POLICIES = {
    "mediated-arch-lbr": partial(MediatedArchLbr, flaws=frozenset(MediatedArchLbr.FLAWS)),
    "mediated-arch-lbr-fixed": MediatedArchLbr,
}
