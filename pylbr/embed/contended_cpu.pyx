"""One processor that the host's perf and one guest share, driven from outside.

The policy and the micro-steps are those of the search, and so are the registers: an emulator's
record path writes to them through a view.  While the host runs it takes branches of its own after
every step:
``FROM = HOST_FROM | serial``, so that a record of it is known wherever it turns up.

The policies have one value per register: "the guest writes a record", "the guest enables".  Which
record is written is settled by exchanging it with the first for the time of the write, and the
value of a control register is put in after the policy's own.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.control cimport lbr_set_enable, lbr_set_frozen, lbr_write_ctl, lbr_write_tos
from lbrcore.lbr cimport (
    LBR_COND, LBR_LEGACY, MODE_OFF, LbrState, lbr_branch, lbr_entry, lbr_record, lbr_set_meta,
    lbr_slot, lbr_state, lbr_view,
)
from pylbr.arbitration.microsteps cimport (
    EMULATE, EXIT_IRQ, GUEST_DB, GUEST_DISABLE, GUEST_ENABLE, GUEST_READ,
    GUEST_USER_FILTER, GUEST_WRITE, GUEST_XSAVES, MOVE_STATE, OP_CLOSE, OP_ENTER, OP_EXIT,
    OP_MIGRATE, OP_OPEN, OP_SWITCH, OWNER_GUEST, Cpu, Observation, Policy, System, Vcpu, nmi,
    start, step, vcpu_reset,
)
from pylbr.arbitration.pinned_event cimport PinnedEvent
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport Image, hw_peek
from pylbr.host.perf cimport EVENT_NONE, EVENT_SLOTS, VLBR, PerfContext

from pylbr.errors import ConfigurationError

cdef enum:
    ON_TASK = 0x40

#: Upper halves of FROM and TO of the host's branches; canonical, and nothing of a guest's.
HOST_FROM, HOST_TO = 0xFFFFC0DE00000000, 0xFFFFC0DF00000000
cdef uint64_t _from = HOST_FROM, _to = HOST_TO
#: What a guest does, for `ContendedCpu.exits`.
XSAVES = GUEST_XSAVES


cdef void _exchange(lbr_entry* one, lbr_entry* other) noexcept nogil:
    cdef lbr_entry kept = one[0]
    one[0] = other[0]
    other[0] = kept


@cython.final
cdef class ContendedCpu:
    """ContendedCpu(policy, registers)\n--\n
    One CPU, the vCPU that runs on it, and host perf.

    Parameters
    ----------
    policy : Policy
    registers : LbrState
        Registers of a processor fresh from reset; copied.  The instance starts in the guest.

    Attributes
    ----------
    policy : Policy
    registers : LbrState
        A view of the registers; a write to it takes effect at once.
    exited : int
        VM exits so far.
    leaked : int
        Records of the host that the guest has read.
    failures : int
        Invariants of the policy that were broken, as bits.

    Raises
    ------
    ConfigurationError
        The policy is for the other flavour of LBRs.
    """

    def __init__(self, Policy policy not None, LbrState registers not None):
        cdef bint legacy = registers.state.config.flavour == LBR_LEGACY
        cdef System* s = &self.system
        if policy.legacy != legacy:
            raise ConfigurationError(
                f"policy {policy.name} needs a processor with "
                f"{'legacy' if policy.legacy else 'architectural'} LBRs")
        self.policy = policy
        self.by_event = isinstance(policy, PinnedEvent)
        memset(s, 0, sizeof(System))
        s.cpus = s.guests = s.cpu[0].irqs = 1
        s.host_depth = s.depth = <uint8_t> registers.state.depth
        s.cpu[0].hw.lbr = registers.state[0]
        vcpu_reset(s, &s.vcpu[0])
        self._operation(OP_SWITCH, 1)
        self._operation(OP_ENTER, 0)
        self._give()

    # Steps

    cdef void _give(self) noexcept nogil:
        """In the guest, its frozen bit of IA32_PERF_GLOBAL_STATUS is the one in force."""
        cdef Cpu* c = &self.system.cpu[0]
        lbr_set_frozen(&c.hw.lbr, self.freezes and c.guest and c.owner == OWNER_GUEST)

    cdef void _branches(self, uint64_t count) noexcept nogil:
        cdef lbr_branch branch
        if self.system.cpu[0].hw.lbr.mode == MODE_OFF:
            self.serial += count
            return
        memset(&branch, 0, sizeof(branch))
        lbr_set_meta(&branch, LBR_COND, 0, 0, 0)
        branch.cycles = branch.instructions = 1
        while count:
            self.serial += 1
            branch.from_ = _from | self.serial
            branch.to = _to | self.serial
            lbr_record(&self.system.cpu[0].hw.lbr, &branch)
            count -= 1

    cdef void _forget(self, bint image) noexcept nogil:
        """Clear what the last steps showed; the image too if these show one."""
        cdef Observation* seen = &self.system.seen
        if image:
            memset(seen, 0, sizeof(Observation))
        else:
            memset(seen, 0, <size_t> (<char*> &seen.image - <char*> seen))

    cdef void _operation(self, int op, int arg) noexcept nogil:
        """One operation to its end, a branch of the host's after each step in the host."""
        cdef Cpu* c = &self.system.cpu[0]
        self._forget(op != OP_EXIT and op != OP_ENTER)
        start(&self.system, c, op, arg)
        while c.frames:
            step(&self.system, c, self.policy)
            if not c.guest:
                self._branches(1)
        self.failures |= self.system.seen.failures

    cdef void _leave(self) noexcept nogil:
        cdef Cpu* c = &self.system.cpu[0]
        cdef Vcpu* v = &self.system.vcpu[0]
        lbr_set_frozen(&c.hw.lbr, 0)
        if v.passthrough and v.vmcs.load_lbr_ctl and self.by_event:
            v.ctl = c.hw.lbr.ctl  # XRSTORS in the guest has loaded it
        self._operation(OP_EXIT, EXIT_IRQ)
        self.exited += 1

    cdef void _return(self) noexcept nogil:
        self._operation(OP_ENTER, 0)
        self._give()

    cdef void _emulate(self, int instruction) noexcept nogil:
        """The hypervisor emulates; the exit has been taken."""
        cdef Cpu* c = &self.system.cpu[0]
        self._forget(instruction == GUEST_READ or instruction == GUEST_XSAVES)
        start(&self.system, c, OP_EXIT, instruction)
        c.frame[0].step = EMULATE
        while c.frames:
            step(&self.system, c, self.policy)
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

    cdef bint intercepts(self, int instruction) noexcept nogil:
        cdef System* s = &self.system
        return self.policy.exits(s, &s.cpu[0], &s.vcpu[0], instruction)

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
            step(s, c, self.policy)
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
            step(s, c, self.policy)
        self._return()

    def debug_exception(self):
        """Deliver a #DB to the guest."""
        if self.policy.legacy:
            self.stop_recording()
            return
        self._leave()
        self._emulate(GUEST_DB)
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

    # The host

    def leave(self):
        """VM exit; the host runs until `enter`."""
        self._leave()

    def enter(self):
        """VM entry."""
        self._return()

    def branches(self, uint64_t count):
        """Take `count` branches in the host."""
        self._branches(count)

    def open(self, int flags):
        """perf_event_open with bits of `EventFlag` and EVENT_ON_TASK; False if refused."""
        cdef PerfContext* context = &self.system.cpu[0].perf.context
        cdef int i, before = 0, after = 0
        if flags & ON_TASK:
            context = &self.system.thread[0]
        for i in range(EVENT_SLOTS):
            before += context.event[i].state != EVENT_NONE
        self._operation(OP_OPEN, flags)
        for i in range(EVENT_SLOTS):
            after += context.event[i].state != EVENT_NONE
        return after > before

    def close(self):
        """Close the host's oldest event; False if there is none."""
        cdef PerfContext* contexts[2]
        cdef int i, j
        contexts[0], contexts[1] = &self.system.cpu[0].perf.context, &self.system.thread[0]
        for i in range(2):
            for j in range(EVENT_SLOTS):
                if (contexts[i].event[j].state != EVENT_NONE
                        and not contexts[i].event[j].flags & VLBR):
                    self._operation(OP_CLOSE, j | (ON_TASK if i else 0))
                    return True
        return False

    def switch(self, uint64_t branches):
        """Switch to another task for `branches` branches, then back to the vCPU's."""
        self._operation(OP_SWITCH, 0)
        self._branches(branches)
        self._operation(OP_SWITCH, 1)

    def migrate(self):
        """Move the vCPU's registers to a fresh vCPU, as user space does."""
        self._operation(OP_MIGRATE, 0)

    def sample(self):
        """Take a PMI of the host.

        Returns
        -------
        (bool, bool, int, int)
            The sample has records; it is marked as incomplete; numbers of records of the host
            and of others.
        """
        cdef System* s = &self.system
        cdef int i, hosts = 0, others = 0
        memset(&s.seen, 0, sizeof(s.seen))
        nmi(s, &s.cpu[0], self.policy)
        for i in range(s.host_depth if s.seen.present else 0):
            if s.seen.image.entry[i].from_ >> 32 == _from >> 32:
                hosts += 1
            elif s.seen.image.entry[i].from_ | s.seen.image.entry[i].to:
                others += 1
        return bool(s.seen.present), bool(s.seen.cut), hosts, others

    @property
    def lost(self):
        """The policy reports to the guest that records were lost."""
        return bool(self.system.vcpu[0].lost)

    @property
    def guest_owns(self):
        """The registers contain the guest's records."""
        return self.system.cpu[0].owner == OWNER_GUEST

    @property
    def guest_debugctl(self):
        """IA32_DEBUGCTL as the hypervisor keeps it; legacy LBRs."""
        return self.system.vcpu[0].debugctl
