"""One workload for every policy: real branch streams at the real depth, costs counted.

The operations, hooks and registers are those that the explorer drives; here each operation
runs to its end, and what happens when is drawn at random with given rates.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.lbr cimport LBR_COND, lbr_branch, lbr_record
from pylbr.arbitration.system cimport (
    EXIT_IRQ, GUEST_ENABLE, GUEST_READ, MAX_GUESTS, OP_CLOSE, OP_ENTER, OP_EXIT, OP_OPEN, OP_SWITCH,
    OWNER_GUEST, OWNER_HOST, Cpu, Policy, System, guest_execute, nmi, start, step,
)
from pylbr.host.hardware cimport Image
from pylbr.host.perf cimport EVENT_NONE, EXCLUDE_GUEST, PINNED
from pylbr.verify.world cimport World, world_init

import numpy as np

from pylbr.errors import ConfigurationError

cdef enum:
    C_BRANCH = 6
    C_WORLD = 750
    C_TASK = 2000
    C_IPI = 1000
    C_MSR = 100
    C_XSAVES = 300

#: Costs in core cycles; a world switch is an entry or an exit.  Orders of magnitude of public
#: measurements, not measured here.
CYCLES = {
    "branch": C_BRANCH, "world switch": C_WORLD, "task switch": C_TASK, "IPI": C_IPI,
    "MSR access": C_MSR, "XSAVES or XRSTORS": C_XSAVES,
}


cdef class Simulation:
    """One CPU, a host task, some vCPUs, a perf session that comes and goes.

    Parameters
    ----------
    policy : Policy
    config : lbrcore.config.LbrConfig
    streams : sequence of ndarray
        Per owner (the host, then each guest) the edges that it takes, in order, dtype uint32,
        repeated for ever; numbers below `edges`.
    edges : int
        How many edges each owner's program has.
    host_branches, guest_branches : int
        Mean length of a stay in the host, and of one in the guest, in branches.
    task_every : int
        World switches per task switch, mean.
    session_every, session_length : int
        Branches between two openings of a host event, and until it closes, means.
    period : int
        Branches of an owner per sample of its records.
    exclude_guest : bool
        Kind of host event.
    seed : int
    """

    cdef readonly Policy policy
    cdef World world
    cdef object streams
    cdef readonly dict counts
    cdef uint64_t random
    cdef uint64_t branches, cycles
    cdef uint64_t taken[1 + MAX_GUESTS]
    cdef uint64_t host_lost, guest_lost, host_seen, guest_seen, sessions, granted, waits_branches
    cdef uint64_t waits_cycles, samples, cut, absent, guest_samples, guest_cut
    cdef uint64_t opened_at, opened_cycles, longest_branches, refused
    cdef uint64_t host_branches, guest_branches, task_every, session_every, session_length, period
    cdef bint waiting, open_, exclude_guest
    cdef uint64_t[:, ::1] truth, profile
    cdef readonly object truth_counts, profile_counts
    cdef uint32_t edges

    def __init__(self, Policy policy, config, streams, uint32_t edges, *, host_branches=40,
                 guest_branches=2000, task_every=50, session_every=400_000,
                 session_length=200_000, period=997, exclude_guest=True, seed=1):
        guests = len(streams) - 1
        if not 1 <= guests <= MAX_GUESTS:
            raise ConfigurationError(f"streams: one of the host and 1 to {MAX_GUESTS} of guests, "
                                     f"not {len(streams)} in all")
        for value in (host_branches, guest_branches, task_every, session_every, session_length,
                      period):
            if value < 1:
                raise ConfigurationError("every rate of a workload is 1 or more")
        self.policy = policy
        world_init(&self.world, policy, config, 1, guests)
        self.streams = [np.ascontiguousarray(s, np.uint32) for s in streams]
        for s in self.streams:
            if not len(s) or s.max() >= edges:
                raise ConfigurationError(f"streams: edges are numbers below {edges}")
        self.edges = edges
        self.truth_counts = np.zeros((guests + 1, edges), np.uint64)
        self.profile_counts = np.zeros((guests + 1, edges), np.uint64)
        self.truth, self.profile = self.truth_counts, self.profile_counts
        self.host_branches, self.guest_branches = host_branches, guest_branches
        self.task_every, self.period = task_every, period
        self.session_every, self.session_length = session_every, session_length
        self.exclude_guest = exclude_guest
        self.random = seed * <uint64_t> 0x9E3779B97F4A7C15 | 1

    cdef inline uint64_t draw(self, uint64_t mean) noexcept nogil:
        """Uniform in 1 .. 2 * mean - 1."""
        self.random ^= self.random >> 12
        self.random ^= self.random << 25
        self.random ^= self.random >> 27
        return 1 + (self.random * <uint64_t> 0x2545F4914F6CDD1D >> 33) % (2 * mean - 1)

    cdef void operation(self, int op, int arg) noexcept nogil:
        """Run one operation to its end and charge what it cost."""
        cdef System* s = &self.world.system
        cdef Cpu* c = &s.cpu[0]
        cdef uint64_t msrs = c.hw.msr_accesses, xsaves = c.hw.xsaves
        cdef uint64_t worlds = c.hw.entries + c.hw.exits
        start(s, c, op, arg)
        while not step(s, c, self.policy):
            self.look()
        self.cycles += C_MSR * (c.hw.msr_accesses - msrs) + C_XSAVES * (c.hw.xsaves - xsaves)
        self.cycles += C_WORLD * (c.hw.entries + c.hw.exits - worlds)
        if op == OP_SWITCH:
            self.cycles += C_TASK
        elif op == OP_OPEN or op == OP_CLOSE:
            self.cycles += C_IPI
        self.look()

    cdef void look(self) noexcept nogil:
        """Has perf got what it waited for?"""
        cdef Cpu* c = &self.world.system.cpu[0]
        cdef uint64_t wait
        if self.waiting and c.perf.granted and c.perf.programmed:
            self.waiting = False
            self.granted += 1
            wait = self.branches - self.opened_at
            self.waits_branches += wait
            self.waits_cycles += self.cycles - self.opened_cycles
            if wait > self.longest_branches:
                self.longest_branches = wait

    cdef void keep(self, int owner, const Image* image, bint present, uint64_t* samples,
                   uint64_t* cut) noexcept nogil:
        """Add a sample to the profile of its viewer."""
        cdef int i
        cdef int n = 0
        cdef uint64_t tag
        samples[0] += 1
        for i in range(self.world.system.depth if present else 0):
            tag = image.entry[i].from_
            if tag >> 40 == <uint64_t> owner + 1:
                self.profile[owner, (tag & 0xFFFFFF) - 1] += 1
                n += 1
        if n < self.world.system.depth:
            cut[0] += 1

    cdef void sample(self, int owner) noexcept nogil:
        cdef System* s = &self.world.system
        cdef Cpu* c = &s.cpu[0]
        memset(&s.seen, 0, sizeof(s.seen))
        if owner == 0:
            nmi(s, c, self.policy)
            self.absent += not s.seen.present
            self.keep(0, &s.seen.image, s.seen.present, &self.samples, &self.cut)
            return
        if self.policy.exits(s, c, &s.vcpu[owner - 1], GUEST_READ):
            self.operation(OP_EXIT, GUEST_READ)
            self.keep(owner, &s.seen.image, True, &self.guest_samples, &self.guest_cut)
            self.operation(OP_ENTER, 0)
        else:
            guest_execute(s, c, GUEST_READ)
            self.keep(owner, &s.seen.image, True, &self.guest_samples, &self.guest_cut)

    cdef void burst(self, int owner, const uint32_t[::1] stream, uint64_t count) noexcept nogil:
        """`count` branches of one owner, its samples among them."""
        cdef Cpu* c = &self.world.system.cpu[0]
        cdef lbr_branch branch
        cdef uint64_t i, at = self.taken[owner], length = stream.shape[0]
        cdef uint32_t edge
        cdef bint wants = owner != 0 or c.perf.hosts
        cdef bint has = c.hw.lbr.active and c.owner == (
            OWNER_HOST if owner == 0 else OWNER_GUEST + owner - 1)
        memset(&branch, 0, sizeof(branch))
        branch.cls = LBR_COND
        branch.cycles = C_BRANCH
        branch.cpl_from = branch.cpl_to = 3 if owner else 0
        for i in range(count):
            edge = stream[(at + i) % length]
            branch.from_ = <uint64_t> (owner + 1) << 40 | (edge + 1)
            branch.to = ~branch.from_
            lbr_record(&c.hw.lbr, &branch)
            if wants:
                self.truth[owner, edge] += 1
                if (at + i) % self.period == 0:
                    self.taken[owner] = at + i + 1
                    self.branches += 1
                    self.sample(owner)
                    self.branches -= 1
        self.taken[owner] = at + count
        self.branches += count
        self.cycles += C_BRANCH * count
        if wants and owner == 0:
            self.host_seen += count
            self.host_lost += 0 if has else count
        elif wants:
            self.guest_seen += count
            self.guest_lost += 0 if has else count

    cdef void session(self, uint64_t* next_open, uint64_t* next_close) noexcept nogil:
        """Open or close the host's event, if it is time; interrupts are on."""
        cdef Cpu* c = &self.world.system.cpu[0]
        if not self.open_ and self.branches >= next_open[0]:
            self.open_ = True
            self.waiting = True
            self.sessions += 1
            self.opened_at, self.opened_cycles = self.branches, self.cycles
            next_close[0] = self.branches + self.draw(self.session_length)
            self.operation(OP_OPEN, PINNED | (EXCLUDE_GUEST if self.exclude_guest else 0))
            if c.perf.context.event[0].state == EVENT_NONE:
                self.refused += 1
                self.waiting = False
        elif self.open_ and self.branches >= next_close[0]:
            self.open_ = self.waiting = False
            next_open[0] = self.branches + self.draw(self.session_every)
            if c.perf.context.event[0].state != EVENT_NONE:
                self.operation(OP_CLOSE, 0)

    def run(self, uint64_t branches):
        """Go on for so many branches; figures are in `counts` then."""
        cdef System* s = &self.world.system
        cdef Cpu* c = &s.cpu[0]
        cdef uint64_t end = self.branches + branches, until_task = self.draw(self.task_every)
        cdef uint64_t next_open = self.branches + self.draw(self.session_every), next_close = 0
        cdef int g, task
        for g in range(s.guests):  # each guest switches its LBRs on
            self.operation(OP_SWITCH, 1 + g)
            self.operation(OP_ENTER, 0)
            self.operation(OP_EXIT, GUEST_ENABLE)
        while self.branches < end:
            self.session(&next_open, &next_close)
            self.burst(0, self.streams[0], self.draw(self.host_branches))
            until_task -= 1
            if until_task == 0:
                until_task = self.draw(self.task_every)
                task = <int> (self.draw(1 << 20) % (s.guests + 1))
                if task != c.task:
                    self.operation(OP_SWITCH, task)
            if c.task:
                self.operation(OP_ENTER, 0)
                self.burst(c.task, self.streams[c.task], self.draw(self.guest_branches))
                self.operation(OP_EXIT, EXIT_IRQ)
            else:
                self.burst(0, self.streams[0], self.draw(self.guest_branches))
        self.counts = {
            "branches": self.branches, "cycles": self.cycles,
            "host_branches": self.host_seen, "host_lost": self.host_lost,
            "guest_branches": self.guest_seen, "guest_lost": self.guest_lost,
            "sessions": self.sessions, "served": self.granted, "refused": self.refused,
            "wait_branches": self.waits_branches, "wait_cycles": self.waits_cycles,
            "longest_wait": self.longest_branches,
            "samples": self.samples, "cut": self.cut, "absent": self.absent,
            "guest_samples": self.guest_samples, "guest_cut": self.guest_cut,
            "msr_accesses": c.hw.msr_accesses, "xsaves": c.hw.xsaves, "entries": c.hw.entries,
            "exits": c.hw.exits,
        }
        return self.counts
