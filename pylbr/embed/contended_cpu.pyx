"""One processor that the host's perf and a guest share, driven from outside.

The host's side is `HostSide`; this is the guest's: an emulator's record path writes to the registers
through a view, and accesses that exit are emulated by the policy.

The policies have one value per register: "the guest writes a record", "the guest enables".  Which
record is written is settled by exchanging it with the first for the time of the write, and the
value of a control register is put in after the policy's own.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.control cimport lbr_set_enable, lbr_write_ctl, lbr_write_tos
from lbrcore.lbr cimport LbrState, lbr_entry, lbr_slot, lbr_state, lbr_view
from pylbr.arbitration.microsteps cimport (
    EMULATE, GUEST_DB, GUEST_DISABLE, GUEST_ENABLE, GUEST_FREEZE, GUEST_READ, GUEST_USER_FILTER,
    GUEST_WRITE, GUEST_XSAVES, MOVE_STATE, OP_EXIT, OP_MIGRATE, OWNER_GUEST, Cpu, Policy, System,
    Vcpu, start, vcpu_reset,
)
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport Image, hw_peek

#: What a guest does, for `ContendedCpu.exits`.
XSAVES = GUEST_XSAVES


cdef void _exchange(lbr_entry* one, lbr_entry* other) noexcept nogil:
    cdef lbr_entry kept = one[0]
    one[0] = other[0]
    other[0] = kept


@cython.final
cdef class ContendedCpu(HostSide):
    """ContendedCpu(policy, registers)\n--\n
    One CPU, the vCPU that runs on it, and host perf.

    Parameters
    ----------
    policy : Policy
    registers : LbrState
        Registers of a processor fresh from reset; copied.  The instance starts in the guest.

    Attributes
    ----------
    registers : LbrState
        A view of the registers; a write to it takes effect at once.

    Raises
    ------
    ConfigurationError
        The policy is for the other flavour of LBRs.
    """

    def __init__(self, Policy policy not None, LbrState registers not None):
        HostSide.__init__(self, policy, registers)

    # Emulation

    cdef void _emulate(self, int instruction) noexcept nogil:
        """The hypervisor emulates; the exit has been taken."""
        cdef Cpu* c = &self.system.cpu[0]
        self.failures |= self.system.seen.failures
        self._forget(instruction == GUEST_READ or instruction == GUEST_XSAVES)
        start(&self.system, c, OP_EXIT, instruction)
        c.frame[0].step = EMULATE
        while c.frames:
            self._step()
        self.failures |= self.system.seen.failures

    cdef void _swap(self, int n) noexcept nogil:
        """Exchange a record, or LER, with the newest, in the registers and in the image."""
        cdef lbr_state* lbr = &self.system.cpu[0].hw.lbr
        cdef Image* image = &self.system.vcpu[0].image
        if n == LER:
            _exchange(&lbr.ler, lbr_slot(lbr, lbr.head))
            _exchange(&image.ler, &image.entry[0])
        elif n:
            _exchange(lbr_slot(lbr, lbr.head - n), lbr_slot(lbr, lbr.head))
            _exchange(&image.entry[n], &image.entry[0])

    cdef void _write(self, int n, const lbr_entry* entry) noexcept nogil:
        self.system.cpu[0].operand = entry[0]
        self._swap(n)
        self._emulate(GUEST_WRITE)
        self._swap(n)
        memset(&self.system.cpu[0].operand, 0, sizeof(lbr_entry))

    cdef void _control(self, uint64_t value) noexcept nogil:
        """IA32_LBR_CTL, or MSR_LBR_SELECT."""
        cdef Cpu* c = &self.system.cpu[0]
        cdef uint64_t before
        if not self.policy.legacy:
            self._emulate(GUEST_ENABLE if value & CTL_LBREN else GUEST_DISABLE)
            self.system.vcpu[0].ctl = value
            return
        self._emulate(GUEST_READ)  # makes the event, which resets the records
        before = c.hw.msr_accesses
        self._emulate(GUEST_USER_FILTER)
        if c.hw.msr_accesses != before:
            lbr_write_ctl(&c.hw.lbr, value)

    cdef void _position(self, LbrState view) noexcept nogil:
        """Set the view's TOS."""
        if self.policy.legacy:
            lbr_write_tos(view.state, self.system.cpu[0].hw.lbr.head & (view.state.depth - 1)
                          if self.system.cpu[0].perf.vlbr else 0)

    cdef void _show(self, LbrState view, const Image* image) noexcept nogil:
        """Put into `view` what a reader is shown."""
        cdef lbr_state* shown = view.state
        cdef uint32_t i
        cdef uint64_t used = image.ctl | image.ler.from_ | image.ler.to | image.ler.info
        self._position(view)
        lbr_write_ctl(shown, image.ctl)
        shown.ler = image.ler
        for i in range(shown.depth):
            lbr_slot(shown, shown.head - i)[0] = image.entry[i]
            used |= image.entry[i].from_ | image.entry[i].to | image.entry[i].info
        shown.xinuse = used != 0

    # The guest

    @property
    def registers(self):
        """The registers of the CPU; what is written to them is in force at once."""
        return lbr_view(&self.system.cpu[0].hw.lbr, self)

    def exits(self, int instruction):
        """True if this `Instruction` of the running guest exits."""
        return bool(self.intercepts(instruction))

    def read(self, LbrState view not None):
        """Emulate an intercepted XSAVES: put into `view` what the guest is shown."""
        with nogil:
            self._leave()
            self._emulate(GUEST_XSAVES)
            self._show(view, &self.system.seen.image)
            self._return()

    def debugctl(self, uint64_t value):
        """Emulate a write of IA32_DEBUGCTL; legacy LBRs."""
        cdef Vcpu* v = &self.system.vcpu[0]
        self._leave()
        self._emulate(GUEST_ENABLE if value & DEBUGCTL_LBR else GUEST_DISABLE)
        v.debugctl = value
        self._return()

    def restore(self, LbrState view not None):
        """Emulate an intercepted XRSTORS, whose result is in `view`."""
        cdef int i
        cdef lbr_entry entry
        self._leave()
        for i in range(LER, <int> view.state.depth):
            entry = view.state.ler if i == LER else lbr_slot(view.state, view.state.head - i)[0]
            self._write(i, &entry)
        self._control(view.state.ctl)
        self._return()

    def load(self, LbrState view not None, bint lost):
        """Set the state that user space read from another vCPU: `view`, and its `lost`."""
        cdef System* s = &self.system
        cdef Cpu* c = &s.cpu[0]
        cdef Vcpu* v = &s.vcpu[0]
        cdef uint32_t i
        if self.policy.legacy:
            self._leave()
            self._emulate(GUEST_READ)
            if c.perf.vlbr:
                lbr_write_tos(&c.hw.lbr, view.state.head & (view.state.depth - 1))
            self._return()
            self.restore(view)
            return
        self._leave()
        start(s, c, OP_MIGRATE, 0)
        while c.frame[0].step != MOVE_STATE:
            self._step()
        memset(&s.seen, 0, sizeof(s.seen))
        s.seen.image.ctl, s.seen.image.depth = view.state.ctl, s.depth
        s.seen.image.ler = view.state.ler
        for i in range(s.depth):
            s.seen.image.entry[i] = lbr_slot(view.state, view.state.head - i)[0]
        s.seen.cut = lost
        vcpu_reset(s, v)
        self.policy.restore_state(s, c, v)
        c.frame[0].step += 1
        while c.frames:
            self._step()
        self._return()

    def debug_exception(self):
        """Deliver a #DB to the guest."""
        if self.policy.legacy:
            self.stop_recording()
            return
        self._leave()
        self._emulate(GUEST_DB)
        self._return()

    def freeze_on_pmi(self, bint on):
        """Emulate a write of the guest's FREEZE_LBRS_ON_PMI; architectural LBRs."""
        cdef Vcpu* v = &self.system.vcpu[0]
        if on == (v.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI != 0):
            return
        self._leave()
        self._emulate(GUEST_FREEZE)
        if not on:
            v.debugctl &= ~<uint64_t> DEBUGCTL_FREEZE_LBRS_ON_PMI
        self._return()

    def stop_recording(self):
        """Clear IA32_DEBUGCTL.LBR of the running guest; legacy LBRs."""
        cdef Cpu* c = &self.system.cpu[0]
        self.system.vcpu[0].debugctl &= ~<uint64_t> DEBUGCTL_LBR
        c.hw.debugctl &= ~<uint64_t> DEBUGCTL_LBR
        lbr_set_enable(&c.hw.lbr, 0)
        self._give()

    def freeze(self, bint frozen):
        """Set or clear the guest's LBR_FRZ; none is emulated for legacy LBRs (spec 6)."""
        self.freezes = frozen and not self.policy.legacy
        self._give()

    def show(self, LbrState view not None):
        """Put into `view` what the guest would be shown, without an exit."""
        cdef Cpu* c = &self.system.cpu[0]
        cdef Image image
        memset(&image, 0, sizeof(image))
        if c.owner == OWNER_GUEST:
            hw_peek(&c.hw, &image)
        elif not self.by_event:
            image = self.system.vcpu[0].image
            image.ctl = self.system.vcpu[0].ctl
        self._show(view, &image)

    @property
    def lost(self):
        """The policy reports to the guest that records were lost."""
        return bool(self.system.vcpu[0].lost)

    @property
    def in_level2(self):
        """The guest that runs is L2."""
        return self.system.vcpu[0].level2 != 0

    @property
    def guest_owns(self):
        """The registers contain the guest's records."""
        return self.system.cpu[0].owner == OWNER_GUEST

    @property
    def guest_debugctl(self):
        """IA32_DEBUGCTL as the hypervisor keeps it; legacy LBRs."""
        return self.system.vcpu[0].debugctl
