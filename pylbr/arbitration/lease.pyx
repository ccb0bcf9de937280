"""`lease`: each side has the registers while it runs; neither waits, and nothing is lost.

A guest records only in guest mode, a host event that excludes guests only in host mode: the two
never need the registers at the same instant.  So while both want them, the images are swapped
at VM entry and VM exit, with interrupts off; while only one does, nothing is swapped.  Only a
host event that traces guests conflicts with a guest that records: then the host has the lease,
and the guest's `lost` flag is set.  A host sample that falls where
the registers are not the host's, or whose window began late, is marked as `cut`.
"""

from lbrcore.control cimport lbr_set_frozen
from pylbr.arbitration.single_owner cimport SingleOwner
from pylbr.arbitration.microsteps cimport (
    Cpu, DONE, GUEST_DEPTH, OWNER_GUEST, OWNER_HOST, OWNER_NONE, System, Vcpu, use_hardware,
    vcpu_index,
)
from pylbr.cpu.hardware cimport hw_restore, hw_save, hw_write_depth
from pylbr.host.perf cimport EXCLUDE_GUEST, FILTER_EXCLUSION, perf_disable


cdef class Lease(SingleOwner):
    """Lease(lazy=False)\n--\n
    Swap the registers' contents at each world switch while both sides record.
    """

    def __init__(self, bint lazy=False):
        self.lazy = lazy
        self.name = "lease-lazy" if lazy else "lease"
        self.guest_short = self.guest_flag = self.host_short = self.host_flag = True
        self.serves_at_entry = True
        self.sharing = FILTER_EXCLUSION
        self.nested_controls = self.guest_pebs = True
        self.any_depth = True

    cdef bint host_traces_guests(self, Cpu* c) noexcept nogil:
        return c.perf.hosts and not c.perf.flags & EXCLUDE_GUEST

    cdef void suspend_host(self, System* s, Cpu* c) noexcept nogil:
        """Put the host's records aside until the VM exit."""
        use_hardware(s, c, OWNER_HOST)
        c.perf.granted = 0
        perf_disable(&c.perf, &c.hw)
        hw_save(&c.hw, &c.perf.context.saved)
        c.perf.context.saved_valid = 1
        self.wipe(s, c)
        c.owner = OWNER_NONE

    cdef void load_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """XRSTORS wants the depth that was saved; the write of DEPTH finds empty records."""
        if c.hw.lbr.depth != s.depth:
            hw_write_depth(&c.hw, s.depth)
        SingleOwner.load_guest(self, s, c, v)

    cdef void attach(self, System* s, Cpu* c) noexcept nogil:
        if c.hw.lbr.depth != s.host_depth:
            hw_write_depth(&c.hw, s.host_depth)
        if c.perf.context.saved_valid:
            hw_restore(&c.hw, &c.perf.context.saved)
            if c.perf.frozen:
                lbr_set_frozen(&c.hw.lbr, 1)
        else:
            c.perf.cut |= c.wanted
        c.perf.context.saved_valid = c.perf.frozen = 0
        SingleOwner.attach(self, s, c)

    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil:
        if not c.perf.hosts:
            c.perf.cut = c.perf.frozen = 0
            c.perf.context.saved_valid = 0
        SingleOwner.perf_update(self, s, c)

    cdef int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0 and (not c.wanted or c.owner != OWNER_GUEST + vcpu_index(s, v)):
            return DONE
        return self.yield_guest(s, c, v, pc)

    cdef bint pending(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        return c.wanted

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0 and self.wants(v) and c.owner == OWNER_HOST and not self.host_traces_guests(c):
            self.suspend_host(s, c)
            return 1
        if c.owner == OWNER_NONE and self.wants(v):
            self.load_guest(s, c, v)
        if c.owner == OWNER_GUEST + vcpu_index(s, v):
            self.admit(c, v)
        else:
            self.keep_out(c, v)
        return DONE

    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        if pc == 0:
            SingleOwner.after_exit(self, s, c, v, 0)
            if c.owner != OWNER_GUEST + vcpu_index(s, v) or not c.perf.hosts:
                return DONE
        return self.yield_guest(s, c, v, pc)

    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil:
        # A reset is how a guest acknowledges `lost`.
        if instruction == GUEST_DEPTH and v.lost:
            return True
        return SingleOwner.exits(self, s, c, v, instruction)


POLICIES = {"lease": Lease}
