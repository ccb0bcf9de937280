"""`request`: perf sets a flag, the hypervisor yields at its next safe point.

The reviewer's proposal.  The guest has the registers from its first use until its vCPU is put
or perf asks.  While perf has them the guest's LBR_CTL is not loaded, its accesses go to its
image, and the image loses its records as soon as the guest would have recorded: it sees a
short stack, as after a deep C-state.
"""

from pylbr.arbitration.single_owner cimport SingleOwner
from pylbr.arbitration.microsteps cimport (
    Cpu, DONE, OWNER_GUEST, OWNER_NONE, System, Vcpu, vcpu_index,
)
from pylbr.host.perf cimport FILTER_EXCLUSION


cdef class Request(SingleOwner):
    """Request(lazy=False)\n--\n
    perf asks for the registers, and gets them at the next VM entry or when the vCPU is put.
    """

    def __init__(self, bint lazy=False):
        self.lazy = lazy
        self.name = "request-lazy" if lazy else "request"
        self.guest_short = self.host_short = True
        self.serves_at_entry = True
        self.sharing = FILTER_EXCLUSION
        self.nested_controls = self.guest_pebs = True

    cdef int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0 and (not c.wanted or c.owner != OWNER_GUEST + vcpu_index(s, v)):
            return DONE
        return self.yield_guest(s, c, v, pc)

    cdef bint pending(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        return c.wanted

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if c.owner == OWNER_NONE and self.wants(v):
            self.load_guest(s, c, v)
        if c.owner == OWNER_GUEST + vcpu_index(s, v):
            self.admit(c, v)
        else:
            self.keep_out(c, v)
        return DONE


POLICIES = {"request": Request}
