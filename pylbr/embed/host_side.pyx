"""A host and its hypervisor on one CPU, driven from outside: operations to their end, a vCPU that
runs in between, and another guest's.

The policy and the micro-steps are those of the search.  While the host runs it takes branches of its
own after every step: ``FROM = HOST_FROM | serial``, so that a record of it is known wherever it turns
up; so are those of the other guest, by `OTHER_FROM`.  After each micro-step stands a look at what must
hold then.  What the host does inside an operation waits for a micro-step: before each, `due` is asked.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.control cimport lbr_set_frozen
from lbrcore.lbr cimport (
    LBR_COND, LBR_EXCEPTION, LBR_LEGACY, MODE_OFF, LbrState, lbr_branch, lbr_entry, lbr_record,
    lbr_set_meta,
)
from pylbr.arbitration.invariants cimport NOT_AS_SET, broken_control, broken_owner
from pylbr.arbitration.microsteps cimport (
    EXIT_IRQ, EXIT_PMI, GUEST_PEBS, GUEST_PMI, OP_CLOSE, OP_ENABLE, OP_ENTER, OP_EXIT, OP_MIGRATE,
    OP_OPEN, OP_ROTATE, OP_SWITCH, OWNER_GUEST, Cpu, Observation, Policy, System, Vcpu,
    guest_execute, nmi, pebs_record, start, step, vcpu_reset,
)
from pylbr.arbitration.pinned_event cimport PinnedEvent
from pylbr.arch.bits cimport DEBUGCTL_LBR
from pylbr.cpu.hardware cimport Image, hw_freeze
from pylbr.host.perf cimport EVENT_NONE, EVENT_SLOTS, VLBR, PerfContext

from pylbr.errors import ConfigurationError

cdef enum:
    ON_TASK = 0x40
    GUEST_TASK = 1              # the vCPU's thread
    OTHER_TASK = 2              # the other vCPU's

#: Upper halves of FROM and TO of the host's branches; canonical, and nothing of a guest's.
HOST_FROM, HOST_TO = 0xFFFFC0DE00000000, 0xFFFFC0DF00000000
#: The same of the other guest's.
OTHER_FROM, OTHER_TO = 0xFFFFC0D600000000, 0xFFFFC0D700000000
cdef uint64_t _from = HOST_FROM, _to = HOST_TO, _other = OTHER_FROM, _other_to = OTHER_TO


cdef class HostSide:
    """HostSide(policy, registers)\n--\n
    Base of `ContendedCpu`: the operations of one CPU, what holds between their micro-steps, and
    what its host does.

    Parameters
    ----------
    policy : Policy
    registers : LbrState
        Registers of a processor fresh from reset; copied.  The instance starts in the guest.

    Attributes
    ----------
    policy : Policy
    exited : int
        VM exits so far.
    saved_control : int
        The guest's control register in the state that user space read last.
    leaked, mixed : int
        Records of the host, and of the other guest, that the guest has read.
    samples, absent, cut : int
        Samples of the host; those without records; those that are marked as incomplete.
    own, others, breaches : int
        Records in them: of the host, of guests, and of guests while `traces_guest` is false.
    missed : int
        Samples with fewer of the host's own records than `sample` asked for.
    failures, broken : int
        Bits of `Failure` and `Broken`: what did not hold at some micro-step.
    traces_guest : bool
        Some event that was opened does not exclude guests.
    waits : bool
        Something waits for a micro-step.
    due : callable or None
        ``due(micro-step, part)`` is called before each then.
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
        s.cpus = s.cpu[0].irqs = 1
        s.guests = 2
        s.host_depth = s.depth = <uint8_t> registers.state.depth
        s.cpu[0].hw.lbr = registers.state[0]
        vcpu_reset(s, &s.vcpu[0])
        vcpu_reset(s, &s.vcpu[1])
        self._operation(OP_SWITCH, GUEST_TASK)
        self._operation(OP_ENTER, 0)
        self._give()

    # Steps

    cdef void _give(self) noexcept nogil:
        """In the guest, its frozen bit of IA32_PERF_GLOBAL_STATUS is the one in force, unless the
        host's is, or the policy has set it."""
        cdef Cpu* c = &self.system.cpu[0]
        if not c.pmi and not self.system.vcpu[0].frozen:
            lbr_set_frozen(&c.hw.lbr, self.freezes and c.guest and c.owner == OWNER_GUEST)

    cdef void _look(self) noexcept nogil:
        """Note what does not hold now."""
        cdef Cpu* c = &self.system.cpu[0]
        cdef int v
        self.broken |= broken_owner(c)
        if not c.guest and c.irqs:
            self.broken |= broken_control(c)
        for v in range(2):
            if (not self.system.vcpu[v].level2
                    and self.system.vcpu[v].vmcs12.debugctl & DEBUGCTL_LBR):
                self.broken |= NOT_AS_SET  # L1 may look; bit 0 always reads 0

    cdef void _step(self) noexcept nogil:
        """One micro-step; before it what waits for it."""
        cdef Cpu* c = &self.system.cpu[0]
        if self.waits:
            with gil:
                self.due(c.frame[c.frames - 1].step, c.frame[c.frames - 1].part)
        step(&self.system, c, self.policy)
        self._look()

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
        cdef int outer = c.frames
        self.failures |= self.system.seen.failures
        self._forget(op != OP_EXIT and op != OP_ENTER)
        start(&self.system, c, op, arg)
        while c.frames > outer:
            self._step()
            if not c.guest:
                self._branches(1)
        self.failures |= self.system.seen.failures

    cdef void _exit(self, int why) noexcept nogil:
        """VM exit of the guest, and the emulation of what caused it."""
        cdef Cpu* c = &self.system.cpu[0]
        cdef Vcpu* v = &self.system.vcpu[0]
        if not c.pmi and not v.frozen:
            lbr_set_frozen(&c.hw.lbr, 0)
        if v.passthrough and v.vmcs.load_lbr_ctl and self.by_event:
            v.ctl = c.hw.lbr.ctl  # XRSTORS in the guest has loaded it
        self._operation(OP_EXIT, why)
        self.exited += 1

    cdef void _leave(self) noexcept nogil:
        """VM exit; by the host's PMI if one is to come."""
        if self.system.cpu[0].pmi:
            self._exit(EXIT_PMI)
            self._sampled(0)
        else:
            self._exit(EXIT_IRQ)

    cdef void _return(self) noexcept nogil:
        if self.system.cpu[0].task != GUEST_TASK:
            self._operation(OP_SWITCH, GUEST_TASK)
        self._operation(OP_ENTER, 0)
        self._give()

    cdef void _sampled(self, int least) noexcept nogil:
        """Count what the host has just read; `least` is how many of its records it should."""
        cdef System* s = &self.system
        cdef int i, hosts = 0, others = 0
        cdef bint short_ = self.policy.host_short, flag = self.policy.host_flag
        for i in range(s.host_depth if s.seen.present else 0):
            if s.seen.image.entry[i].from_ >> 32 == _from >> 32:
                hosts += 1
            elif s.seen.image.entry[i].from_ | s.seen.image.entry[i].to:
                others += 1
        self.samples += 1
        self.absent += not s.seen.present
        self.cut += s.seen.cut != 0
        self.own += hosts
        self.others += others
        self.breaches += 0 if self.traces_guest else others
        self.missed += hosts < least and (not short_ or flag and not s.seen.cut)

    cdef void _guest_reads(self) noexcept nogil:
        """Count whose records the guest has just got, of those that are another's."""
        cdef const Image* image = &self.system.seen.image
        cdef uint32_t i
        for i in range(self.system.depth):
            self.leaked += image.entry[i].from_ >> 32 == _from >> 32
            self.mixed += image.entry[i].from_ >> 32 == _other >> 32

    cdef bint intercepts(self, int instruction) noexcept nogil:
        cdef System* s = &self.system
        return self.policy.exits(s, &s.cpu[0], &s.vcpu[0], instruction)

    # The host

    def leave(self, bint pmi=False):
        """VM exit, by a PMI of the host or another interrupt; the host runs until `enter`."""
        if pmi:
            self._exit(EXIT_PMI)
            self._sampled(0)
        else:
            self._leave()

    def enter(self):
        """VM entry; its thread is scheduled in before if another runs."""
        self._return()

    @property
    def in_guest(self):
        """The guest runs, not the host."""
        return self.system.cpu[0].guest != 0

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

    def close(self, int event=-1):
        """Close an event, a slot with EVENT_ON_TASK, or the host's oldest; False if there is none."""
        cdef PerfContext* contexts[2]
        cdef int i, j
        contexts[0], contexts[1] = &self.system.cpu[0].perf.context, &self.system.thread[0]
        for i in range(2):
            for j in range(EVENT_SLOTS):
                if event >= 0 and event != (j | (ON_TASK if i else 0)):
                    continue
                if (contexts[i].event[j].state != EVENT_NONE
                        and not contexts[i].event[j].flags & VLBR):
                    self._operation(OP_CLOSE, j | (ON_TASK if i else 0))
                    return True
        return False

    def enable(self, int event):
        """Enable an event that is in ERROR: a slot, with EVENT_ON_TASK of the task."""
        self._operation(OP_ENABLE, event)

    def rotate(self):
        """perf's multiplex timer."""
        self._operation(OP_ROTATE, 0)

    def task(self, int number):
        """Switch to a task: 0 of the host, 1 the vCPU's, 2 the other vCPU's."""
        if self.system.cpu[0].task != number:
            self._operation(OP_SWITCH, number)

    def switch(self, uint64_t branches):
        """Switch to another task for `branches` branches, then back to the vCPU's."""
        self._operation(OP_SWITCH, 0)
        self._branches(branches)
        self._operation(OP_SWITCH, GUEST_TASK)

    def migrate(self):
        """Move the vCPU's registers to a fresh vCPU, as user space does."""
        self.task(GUEST_TASK)
        self._operation(OP_MIGRATE, 0)
        self.saved_control = self.system.seen.image.ctl

    def sample(self, int least=0):
        """Take a PMI of the host.

        Parameters
        ----------
        least : int
            So many records of its own the sample should have; fewer are counted as `missed`,
            unless the policy documents that they may be.

        Returns
        -------
        (bool, bool, int, int)
            The sample has records; it is marked as incomplete; numbers of records of the host
            and of others.
        """
        cdef System* s = &self.system
        cdef uint64_t hosts, others
        self.failures |= s.seen.failures
        memset(&s.seen, 0, sizeof(s.seen))
        nmi(s, &s.cpu[0], self.policy)
        hosts, others = self.own, self.others
        self._sampled(least)
        self._look()
        return (bool(s.seen.present), bool(s.seen.cut), int(self.own - hosts),
                int(self.others - others))

    def pebs(self):
        """The processor writes a PEBS record of the host."""
        cdef System* s = &self.system
        memset(&s.seen, 0, sizeof(s.seen))
        pebs_record(s, &s.cpu[0], self.policy)
        self._sampled(0)

    def overflow(self):
        """A counter of the host overflows; its PMI comes later."""
        cdef Cpu* c = &self.system.cpu[0]
        c.pmi = 1
        hw_freeze(&c.hw)

    def host_freezes(self):
        """perf sets FREEZE_LBRS_ON_PMI from now on; architectural LBRs."""
        self.system.cpu[0].perf.freezes = 1

    # What comes to a vCPU, or is done by the other guest

    def vcpu(self, int instruction):
        """Let an `Instruction` happen to the guest that runs, which no program of the machine
        executes: INIT, a reset, VM entry of L1.  The host runs then, unless it does not exit."""
        cdef System* s = &self.system
        cdef Cpu* c = &s.cpu[0]
        if self.intercepts(instruction):
            self._exit(instruction)
            if instruction == GUEST_PMI and c.pmi:
                self._sampled(0)
            return
        self._forget(True)
        guest_execute(s, c, instruction)
        if instruction == GUEST_PEBS:
            self._guest_reads()

    def other(self, int instruction):
        """Let the other guest execute an `Instruction`."""
        self._other_enters()
        self._other_executes(instruction)
        self._other_leaves()

    def other_branch(self, bint fault):
        """Let the other guest take a branch, or an exception."""
        cdef lbr_branch branch
        self._other_enters()
        memset(&branch, 0, sizeof(branch))
        lbr_set_meta(&branch, LBR_EXCEPTION if fault else LBR_COND, 0, 0, 0)
        self.serial += 1
        branch.from_, branch.to = _other | self.serial, _other_to | self.serial
        lbr_record(&self.system.cpu[0].hw.lbr, &branch)
        self._other_leaves()

    cdef void _other_enters(self) noexcept nogil:
        if self.system.cpu[0].task != OTHER_TASK:
            self._operation(OP_SWITCH, OTHER_TASK)
        self._operation(OP_ENTER, 0)

    cdef void _other_leaves(self) noexcept nogil:
        if self.system.cpu[0].guest:
            self._operation(OP_EXIT, EXIT_IRQ)

    cdef void _other_executes(self, int instruction) noexcept nogil:
        cdef System* s = &self.system
        cdef Cpu* c = &s.cpu[0]
        c.operand.from_, c.operand.to = _other | self.serial, _other_to | self.serial
        if self.policy.exits(s, c, &s.vcpu[1], instruction):
            self._operation(OP_EXIT, instruction)
        else:
            self._forget(True)
            guest_execute(s, c, instruction)
        memset(&c.operand, 0, sizeof(lbr_entry))
