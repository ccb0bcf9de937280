"""One workload for every policy: real branch streams at the real depth, costs counted.

The operations, hooks and registers are those that the explorer drives; here each operation
runs to its end, and what happens when is drawn at random with given rates.  Time is counted in
branches: the CPU that has retired fewest continues, so that every policy sees the same workload.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.lbr cimport LBR_COND, lbr_branch, lbr_record
from pylbr.arbitration.microsteps cimport (
    EXIT_IRQ, GUEST_ENABLE, GUEST_READ, MAX_CPUS, MAX_GUESTS, OP_ENTER, OP_EXIT, OWNER_GUEST,
    OWNER_HOST, Cpu, Policy, System, current_context, guest_execute, nmi,
)
from pylbr.host.perf cimport EVENT_NONE, EVENT_SLOTS, VLBR, PerfContext
from pylbr.verify.sessions cimport (
    C_BRANCH, C_IPI, C_MSR, C_TASK, C_WORLD, C_XSAVES, NOWHERE, Lane, Sessions, draw,
)
from pylbr.verify.world cimport world_init

import numpy as np

from pylbr.errors import ConfigurationError

#: Costs in core cycles; a world switch is an entry or an exit.  Orders of magnitude of public
#: measurements, not measured here.
CYCLES = {
    "branch": C_BRANCH, "world switch": C_WORLD, "task switch": C_TASK, "IPI": C_IPI,
    "MSR access": C_MSR, "XSAVES or XRSTORS": C_XSAVES,
}


cdef class Simulation(Sessions):
    """Simulation(policy, config, streams, edges, *, cpus=1, host_branches=40, \
guest_branches=2000, task_every=50, session_every=400000, session_length=200000, period=997, \
exclude_guest=True, seed=1)\n--\n
    Some CPUs, a host task on each, vCPUs that move between them, perf sessions that come and go.

    With one CPU, perf's event is bound to it.  With more, each has a perf tool, whose event is
    bound to a CPU, its own or another (then an IPI goes there), or to the task that runs there.

    Parameters
    ----------
    policy : Policy
    config : lbrcore.config.LbrConfig
    streams : sequence of ndarray
        Per owner (the host, then each guest) the edges that it takes, in order, dtype uint32,
        repeated for ever; numbers below `edges`.  Each CPU's host task starts elsewhere in the
        host's.
    edges : int
        How many edges each owner's program has.
    cpus : int
        1 or 2.
    host_branches, guest_branches : int
        Mean length of a stay in the host, and of one in the guest, in branches.
    task_every : int
        World switches per task switch of a CPU, mean.
    session_every, session_length : int
        Branches between two openings of a host event by a tool, and until it closes, means.
    period : int
        Branches of an owner per sample of its records.
    exclude_guest : bool
        Kind of host event.
    seed : int

    Attributes
    ----------
    branches : int
        So far, on all CPUs.
    counts : dict
        Figures of all CPUs together.  Where the name does not explain it: `remote` counts sessions
        whose event is on another CPU than the tool, `of_tasks` those whose event is a task's;
        `leaks` are samples with a record of an owner that the viewer does not trace, `gaps` are
        samples that miss a branch between their oldest record and now and are not marked; `moved`
        counts vCPUs that came to another CPU, `moved_compared` those that looked there for their
        records and had had enough branches to fill the stack, `moved_whole` those that found all
        of them; `failures` are bits of `Failure`.
    per_cpu : list of dict
        The figures that are counted per CPU.
    truth_counts, profile_counts : ndarray, uint64, shape (owners, edges)
        How often each edge was taken, and how often samples contain it.

    Raises
    ------
    ConfigurationError
        Numbers of streams or CPUs, or a rate, out of range.
    """

    cdef readonly dict counts
    cdef readonly list per_cpu
    cdef uint64_t taken[MAX_GUESTS]         # place of each guest in its stream
    cdef int last_cpu[MAX_GUESTS]
    cdef bint arrived[MAX_GUESTS]           # on another CPU, and has not entered there yet
    cdef uint64_t host_lost, guest_lost, host_seen, guest_seen
    cdef uint64_t samples, cut, absent, guest_samples, guest_cut
    cdef uint64_t leaks, gaps, moved, moved_whole, compared
    cdef uint64_t host_branches, guest_branches, task_every, period
    cdef bint started
    cdef const uint32_t[::1] stream         # of all owners, one after the other
    cdef uint64_t stream_start[1 + MAX_GUESTS]
    cdef uint64_t stream_length[1 + MAX_GUESTS]
    cdef uint64_t[:, ::1] truth, profile
    cdef readonly object truth_counts, profile_counts

    def __init__(self, Policy policy, config, streams, uint32_t edges, *, int cpus=1,
                 host_branches=40, guest_branches=2000, task_every=50, session_every=400_000,
                 session_length=200_000, period=997, exclude_guest=True, uint64_t seed=1):
        cdef Lane* lane
        cdef int i
        guests = len(streams) - 1
        if not 1 <= guests <= MAX_GUESTS:
            raise ConfigurationError(f"streams: one of the host and 1 to {MAX_GUESTS} of guests, "
                                     f"not {len(streams)} in all")
        if not 1 <= cpus <= MAX_CPUS:
            raise ConfigurationError(f"cpus: 1 to {MAX_CPUS}, not {cpus}")
        for value in (host_branches, guest_branches, task_every, session_every, session_length,
                      period):
            if value < 1:
                raise ConfigurationError("every rate of a workload is 1 or more")
        self.policy = policy
        world_init(&self.world, policy, config, cpus, guests)
        streams = [np.ascontiguousarray(s, np.uint32) for s in streams]
        for s in streams:
            if not len(s) or s.max() >= edges:
                raise ConfigurationError(f"streams: edges are numbers below {edges}")
        self.stream = np.concatenate(streams)
        for i, s in enumerate(streams):
            self.stream_length[i] = len(s)
            self.stream_start[i] = self.stream_start[i - 1] + len(streams[i - 1]) if i else 0
        self.truth_counts = np.zeros((guests + 1, edges), np.uint64)
        self.profile_counts = np.zeros((guests + 1, edges), np.uint64)
        self.truth, self.profile = self.truth_counts, self.profile_counts
        self.host_branches, self.guest_branches = host_branches, guest_branches
        self.task_every, self.period = task_every, period
        self.session_every, self.session_length = session_every, session_length
        self.exclude_guest = exclude_guest
        for i in range(guests):
            self.last_cpu[i] = NOWHERE
        for i in range(cpus):
            lane = &self.lane[i]
            lane.random = (seed + (<uint64_t> i << 32)) * <uint64_t> 0x9E3779B97F4A7C15 | 1
            lane.at = len(streams[0]) * i // cpus
            lane.until_task = draw(lane, task_every)
            lane.session.next_open = draw(lane, session_every)

    # Samples

    cdef int window(self, int owner, uint64_t at, bint* foreign, bint* gap) noexcept nogil:
        """Records of the owner in what was just seen; `at` is its place in its stream."""
        cdef int i, n = 0
        cdef uint64_t tag, expected
        foreign[0] = gap[0] = False
        for i in range(self.world.system.depth):
            tag = self.world.system.seen.image.entry[i].from_
            if tag >> 40 == <uint64_t> owner + 1:
                n += 1
                expected = self.stream[self.stream_start[owner]
                                       + (at - n) % self.stream_length[owner]]
                gap[0] |= at < <uint64_t> n or (tag & 0xFFFFFF) - 1 != expected
            elif tag:
                foreign[0] = True
        return n

    cdef void keep(self, int owner, uint64_t at, bint present, uint64_t* samples,
                   uint64_t* cut) noexcept nogil:
        """Add a sample to the profile of its viewer."""
        cdef System* s = &self.world.system
        cdef int i
        cdef int n = 0
        cdef uint64_t tag
        cdef bint foreign = False, gap = False
        samples[0] += 1
        if present:
            n = self.window(owner, at, &foreign, &gap)
            self.leaks += foreign and (owner != 0 or self.exclude_guest)
            self.gaps += gap and not s.seen.cut
            for i in range(s.depth):
                tag = s.seen.image.entry[i].from_
                if tag >> 40 == <uint64_t> owner + 1:
                    self.profile[owner, (tag & 0xFFFFFF) - 1] += 1
        if n < s.depth:
            cut[0] += 1

    cdef void host_sample(self, int cpu) noexcept nogil:
        """A PMI, if an event of perf counts here: one in ERROR does not."""
        cdef System* s = &self.world.system
        memset(&s.seen, 0, sizeof(s.seen))
        if s.cpu[cpu].perf.hosts:
            nmi(s, &s.cpu[cpu], self.policy)
            self.failures |= s.seen.failures
        self.absent += not s.seen.present
        self.keep(0, self.lane[cpu].at, s.seen.present, &self.samples, &self.cut)

    cdef void guest_reads(self, int cpu) noexcept nogil:
        """The guest that runs reads its records; they are in `System.seen` then."""
        cdef System* s = &self.world.system
        cdef Cpu* c = &s.cpu[cpu]
        memset(&s.seen, 0, sizeof(s.seen))
        if self.policy.exits(s, c, &s.vcpu[c.guest - 1], GUEST_READ):
            self.operation(cpu, OP_EXIT, GUEST_READ)
            self.operation(cpu, OP_ENTER, 0)
        else:
            guest_execute(s, c, GUEST_READ)

    cdef void sample(self, int cpu, int owner) noexcept nogil:
        if owner == 0:
            self.host_sample(cpu)
            return
        self.guest_reads(cpu)
        self.keep(owner, self.taken[owner - 1], True, &self.guest_samples, &self.guest_cut)

    cdef void look_back(self, int cpu) noexcept nogil:
        """A guest on a new CPU looks for the records that it had on the old one."""
        cdef int owner = self.world.system.cpu[cpu].guest
        cdef bint foreign, gap
        self.arrived[owner - 1] = False
        if self.taken[owner - 1] < self.world.system.depth:
            return
        self.guest_reads(cpu)
        self.compared += 1
        if self.window(owner, self.taken[owner - 1], &foreign, &gap) == self.world.system.depth:
            self.moved_whole += not gap

    # What happens on a CPU

    cdef bint wanted(self, Cpu* c) noexcept nogil:
        """Is there an event of perf's that is to count here?"""
        cdef PerfContext* contexts[2]
        cdef int i, j
        contexts[0], contexts[1] = &c.perf.context, current_context(&self.world.system, c)
        for i in range(2):
            for j in range(EVENT_SLOTS):
                if (contexts[i].event[j].state != EVENT_NONE
                        and not contexts[i].event[j].flags & VLBR):
                    return True
        return False

    cdef void burst(self, int cpu, int owner, uint64_t count) noexcept nogil:
        """`count` branches of one owner, its samples among them."""
        cdef Cpu* c = &self.world.system.cpu[cpu]
        cdef Lane* lane = &self.lane[cpu]
        cdef uint64_t* place = &self.taken[owner - 1] if owner else &lane.at
        cdef lbr_branch branch
        cdef uint64_t i, at = place[0], length = self.stream_length[owner]
        cdef const uint32_t* stream = &self.stream[self.stream_start[owner]]
        cdef uint32_t edge
        cdef bint wants = owner != 0 or self.wanted(c)
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
                    place[0] = at + i + 1
                    lane.branches += 1
                    self.sample(cpu, owner)
                    lane.branches -= 1
        place[0] = at + count
        lane.branches += count
        lane.cycles += C_BRANCH * count
        if wants and owner == 0:
            self.host_seen += count
            self.host_lost += 0 if has else count
        elif wants:
            self.guest_seen += count
            self.guest_lost += 0 if has else count

    cdef void pick(self, int cpu, int task) noexcept nogil:
        """The scheduler picks a task: perhaps a vCPU that comes from another CPU."""
        self.switch_task(cpu, task)
        if not task:
            return
        if self.last_cpu[task - 1] != NOWHERE and self.last_cpu[task - 1] != cpu:
            self.moved += 1
            self.arrived[task - 1] = True
        self.last_cpu[task - 1] = cpu

    cdef bint runs_elsewhere(self, int cpu, int task) noexcept nogil:
        cdef int i
        for i in range(self.world.system.cpus):
            if task and i != cpu and self.world.system.cpu[i].task == task:
                return True
        return False

    cdef void turn(self, int cpu) noexcept nogil:
        """A stay in the host, and one in the guest, which a later exit ends."""
        cdef System* s = &self.world.system
        cdef Cpu* c = &s.cpu[cpu]
        cdef Lane* lane = &self.lane[cpu]
        cdef int task
        if c.guest:
            self.operation(cpu, OP_EXIT, EXIT_IRQ)
        self.tool(cpu)
        self.burst(cpu, 0, draw(lane, self.host_branches))
        lane.until_task -= 1
        if lane.until_task == 0:
            lane.until_task = draw(lane, self.task_every)
            task = <int> (draw(lane, 1 << 20) % (s.guests + 1))
            if task != c.task and not self.runs_elsewhere(cpu, task):
                self.pick(cpu, task)
        if c.task:
            self.operation(cpu, OP_ENTER, 0)
            if self.arrived[c.task - 1]:
                self.look_back(cpu)
        self.burst(cpu, c.task, draw(lane, self.guest_branches))

    cdef void begin(self) noexcept nogil:
        """Each guest switches its LBRs on."""
        cdef int g, cpu
        self.started = True
        for g in range(self.world.system.guests):
            cpu = g % self.world.system.cpus
            self.pick(cpu, 1 + g)
            self.operation(cpu, OP_ENTER, 0)
            self.operation(cpu, OP_EXIT, GUEST_ENABLE)

    @property
    def branches(self):
        """Branches retired so far, on all CPUs."""
        return sum([self.lane[i].branches for i in range(self.world.system.cpus)])

    @property
    def tasks(self):
        """The task on each CPU: 0 its host task, 1 + v the thread of vCPU v."""
        return [self.world.system.cpu[i].task for i in range(self.world.system.cpus)]

    def run(self, uint64_t branches):
        """Run for `branches` further branches, and return `counts`.

        Two runs equal one of their total length.
        """
        cdef int cpu, next_, cpus = self.world.system.cpus
        cdef uint64_t total = self.branches, before
        cdef uint64_t end = total + branches
        with nogil:
            if not self.started:
                self.begin()
            while total < end:
                next_ = 0
                for cpu in range(1, cpus):
                    if self.lane[cpu].branches < self.lane[next_].branches:
                        next_ = cpu
                before = self.lane[next_].branches
                self.turn(next_)
                total += self.lane[next_].branches - before
            for cpu in range(cpus):
                if self.world.system.cpu[cpu].guest:
                    self.operation(cpu, OP_EXIT, EXIT_IRQ)
        self.policy.check()
        self.per_cpu = []
        for cpu in range(cpus):
            self.per_cpu.append({
                "branches": self.lane[cpu].branches, "cycles": self.lane[cpu].cycles,
                "msr_accesses": self.world.system.cpu[cpu].hw.msr_accesses,
                "xsaves": self.world.system.cpu[cpu].hw.xsaves,
                "entries": self.world.system.cpu[cpu].hw.entries,
                "exits": self.world.system.cpu[cpu].hw.exits,
            })
        self.counts = {key: sum([one[key] for one in self.per_cpu]) for key in self.per_cpu[0]} | {
            "host_branches": self.host_seen, "host_lost": self.host_lost,
            "guest_branches": self.guest_seen, "guest_lost": self.guest_lost,
            "sessions": self.sessions, "served": self.granted, "refused": self.refused,
            "remote": self.remote, "of_tasks": self.of_tasks,
            "wait_branches": self.waits_branches, "wait_cycles": self.waits_cycles,
            "longest_wait": self.longest_branches,
            "samples": self.samples, "cut": self.cut, "absent": self.absent,
            "guest_samples": self.guest_samples, "guest_cut": self.guest_cut,
            "leaks": self.leaks, "gaps": self.gaps, "failures": self.failures,
            "moved": self.moved, "moved_compared": self.compared, "moved_whole": self.moved_whole,
        }
        return self.counts
