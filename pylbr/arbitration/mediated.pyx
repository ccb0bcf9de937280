"""`mediated`: the guest owns the PMU from vcpu_load to vcpu_put.

Host events must exclude guests; they are scheduled out while a vCPU is loaded, its thread's own
host-mode branches included.  XSAVES at put, then a wipe.  A guest sees no trace of the host.
"""

from pylbr.arbitration.single_owner cimport SingleOwner
from pylbr.arbitration.microsteps cimport Cpu, DONE, GUEST_ACK, System, Vcpu
from pylbr.host.perf cimport FILTER_EXCLUSION


cdef class Mediated(SingleOwner):
    """Swap whole facilities when a vCPU comes and goes."""

    def __init__(self):
        self.name = "mediated"
        self.host_short = self.mediated = True
        self.refuses_guest_tracing = True
        self.sharing = FILTER_EXCLUSION
        self.nested_controls = self.guest_pebs = True

    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0:
            c.scratch = c.irqs
            c.irqs = 0
            if c.perf.granted:
                self.detach(s, c)
                c.wanted = 1
            return 1
        self.load_guest(s, c, v)
        c.irqs = c.scratch
        c.scratch = 0
        return DONE

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        return instruction != GUEST_ACK and SingleOwner.exits(self, s, c, v, instruction)

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        self.admit(c, v)
        return DONE


POLICIES = {"mediated": Mediated}
