"""The mediated PMU: the guest owns the PMU while it may run, and host events must exclude guests.

`mediated` is its first form, an RFC: from vcpu_load to vcpu_put, so that branches that the vCPU's
thread takes in the host are lost to host events.  `mediated-merged` is as it was merged (commit
42457a7fb6ca): from shortly before VM entry to shortly after VM exit, interrupts off.  What is
merged has no LBRs; in both models they are restored by XRSTORS when the guest gets the PMU, and
saved by XSAVES and wiped when it leaves.  A guest sees no trace of the host.
"""

from lbrcore.control cimport lbr_set_frozen
from pylbr.arbitration.microsteps cimport Cpu, DONE, GUEST_ACK, OWNER_NONE, System, Vcpu
from pylbr.arbitration.single_owner cimport SingleOwner
from pylbr.host.perf cimport FILTER_EXCLUSION


cdef class _MediatedPmu(SingleOwner):
    """What both forms have in common."""

    def __init__(self, name, bint lazy):
        self.lazy = lazy
        self.name = f"{name}-lazy" if lazy else name
        self.host_short = self.mediated = True
        self.refuses_guest_tracing = True
        self.sharing = FILTER_EXCLUSION
        self.nested_controls = self.guest_pebs = True

    cdef void take_from_host(self, System* s, Cpu* c) noexcept nogil:
        """IA32_PERF_GLOBAL_STATUS is switched: what has overflowed is forgotten, with LBR_FRZ."""
        if c.perf.granted:
            self.detach(s, c)
            c.wanted = 1
        c.pmi = 0
        lbr_set_frozen(&c.hw.lbr, 0)

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        return instruction != GUEST_ACK and SingleOwner.exits(self, s, c, v, instruction)


cdef class Mediated(_MediatedPmu):
    """Mediated(lazy=False)\n--\n
    Swap the whole facility at vcpu_load and vcpu_put.
    """

    def __init__(self, bint lazy=False):
        super().__init__("mediated", lazy)

    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0:
            c.scratch = c.irqs
            c.irqs = 0
            self.take_from_host(s, c)
            return 1
        if not self.lazy or self.wants(v):
            self.load_guest(s, c, v)
        c.irqs = c.scratch
        c.scratch = 0
        return DONE

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if not self.lazy:       # vcpu_load has seen to everything
            self.admit(c, v)
            return DONE
        if pc == 0 and c.perf.granted:  # attached since the guest was loaded
            self.take_from_host(s, c)
            return 1
        if c.owner == OWNER_NONE and self.wants(v):
            self.load_guest(s, c, v)
        if c.owner == OWNER_NONE:
            self.keep_out(c, v)
        else:
            self.admit(c, v)
        return DONE

    cdef int vcpu_put(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0 and c.owner == OWNER_NONE:
            if c.perf.hosts:
                self.attach(s, c)
            return DONE
        return SingleOwner.vcpu_put(self, s, c, v, pc)


cdef class MediatedMerged(_MediatedPmu):
    """MediatedMerged(lazy=False)\n--\n
    Swap them at every VM entry and exit.
    """

    def __init__(self, bint lazy=False):
        super().__init__("mediated-merged", lazy)

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """perf_load_guest_context, then KVM's own registers."""
        if pc == 0:
            self.take_from_host(s, c)
            return 1
        if self.lazy and not self.wants(v):
            self.keep_out(c, v)
            return DONE
        self.load_guest(s, c, v)
        self.admit(c, v)
        return DONE

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0:
            SingleOwner.after_exit(self, s, c, v, 0)
        if pc == 0 and c.owner == OWNER_NONE:
            if c.perf.hosts:
                self.attach(s, c)
            return DONE
        return self.yield_guest(s, c, v, pc)


POLICIES = {"mediated": Mediated, "mediated-merged": MediatedMerged}
