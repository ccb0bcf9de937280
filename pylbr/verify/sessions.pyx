"""perf tools whose events come and go, and how long each waits for the LBRs.

A tool opens an event on its own CPU or, by IPI, on another, or for the task that runs there.
"""

from libc.stdint cimport uint64_t

from pylbr.arbitration.microsteps cimport (
    EXIT_IRQ, OP_CLOSE, OP_EXIT, OP_OPEN, OP_SWITCH, Cpu, System, start, step,
)
from pylbr.host.perf cimport EVENT_ACTIVE, EVENT_NONE, EVENT_SLOTS, EXCLUDE_GUEST, PINNED

cdef enum:
    ON_TASK = 0x40


cdef class Sessions:
    """Sessions()\n--\n
    Base of `Simulation`: operations charged to the CPU that runs them, and a tool on each CPU.

    Attributes
    ----------
    policy : Policy
    """

    cdef void operation(self, int cpu, int op, int arg) noexcept nogil:
        """Run one operation to its end and charge what it cost."""
        cdef System* s = &self.world.system
        cdef Cpu* c = &s.cpu[cpu]
        cdef Lane* lane = &self.lane[cpu]
        cdef uint64_t msrs = c.hw.msr_accesses, xsaves = c.hw.xsaves
        cdef uint64_t worlds = c.hw.entries + c.hw.exits
        start(s, c, op, arg)
        while not step(s, c, self.policy):
            self.look(cpu)
        lane.cycles += C_MSR * (c.hw.msr_accesses - msrs) + C_XSAVES * (c.hw.xsaves - xsaves)
        lane.cycles += C_WORLD * (c.hw.entries + c.hw.exits - worlds)
        if op == OP_SWITCH:
            lane.cycles += C_TASK
        elif op == OP_OPEN or op == OP_CLOSE:
            lane.cycles += C_IPI
        self.failures |= s.seen.failures
        self.look(cpu)

    # What each waits for

    cdef PerfContext* context(self, const Session* session) noexcept nogil:
        cdef System* s = &self.world.system
        if not session.on_task:
            return &s.cpu[session.home].perf.context
        return &s.thread[session.task - 1] if session.task else &s.cpu[session.home].host_task

    cdef void look(self, int cpu) noexcept nogil:
        """Has perf got what it waited for on this CPU?"""
        cdef Cpu* c = &self.world.system.cpu[cpu]
        cdef Session* session
        cdef int i
        if not self.waiting or not c.perf.granted or not c.perf.programmed:
            return
        for i in range(self.world.system.cpus):
            session = &self.lane[i].session
            if (session.waiting and session.cpu == cpu
                    and self.context(session).event[session.slot].state == EVENT_ACTIVE):
                self.pause(session)
                self.granted += 1
                self.waits_branches += session.waited_branches
                self.waits_cycles += session.waited_cycles
                if session.waited_branches > self.longest_branches:
                    self.longest_branches = session.waited_branches
                self.forget(session)

    cdef void forget(self, Session* session) noexcept nogil:
        """It waits no longer."""
        self.waiting -= session.waiting
        session.waiting = False

    cdef void pause(self, Session* session) noexcept nogil:
        """Add up how long it has waited."""
        cdef Lane* lane = &self.lane[session.cpu]
        session.waited_branches += lane.branches - session.since_branches
        session.waited_cycles += lane.cycles - session.since_cycles

    cdef void resume(self, Session* session, int cpu) noexcept nogil:
        """From now on it waits on this CPU."""
        session.cpu = cpu
        session.since_branches = self.lane[cpu].branches
        session.since_cycles = self.lane[cpu].cycles

    # Tools

    cdef void tool(self, int cpu) noexcept nogil:
        """Open or close the event of the tool that runs here, if it is time."""
        cdef Lane* lane = &self.lane[cpu]
        if not lane.session.open_ and lane.branches >= lane.session.next_open:
            self.open_session(cpu)
        elif lane.session.open_ and lane.branches >= lane.session.next_close:
            self.close_session(cpu)

    cdef void interrupt(self, int cpu, int op, int arg, int sender) noexcept nogil:
        """An IPI, which makes a guest exit; a sender on another CPU waits for it."""
        if self.world.system.cpu[cpu].guest:
            self.operation(cpu, OP_EXIT, EXIT_IRQ)
        self.operation(cpu, op, arg)
        if cpu != sender:
            self.lane[sender].cycles += C_IPI

    cdef void place_event(self, int cpu) noexcept nogil:
        """What the tool's event is to be bound to."""
        cdef int i, cpus = self.world.system.cpus
        cdef Lane* lane = &self.lane[cpu]
        cdef Session* session = &lane.session
        session.home = cpu
        session.on_task = False
        if cpus == 1:
            return
        session.home = <int> (draw(lane, 1 << 20) % <uint64_t> cpus)
        if draw(lane, 1 << 20) & 1:
            for i in range(cpus):
                if self.lane[i].session.open_ and self.lane[i].session.on_task:
                    return      # a thread has slots for one event of perf and one of KVM
            session.on_task = True
            session.task = self.world.system.cpu[session.home].task

    cdef void open_session(self, int cpu) noexcept nogil:
        cdef Lane* lane = &self.lane[cpu]
        cdef Session* session = &lane.session
        cdef PerfContext* context
        self.place_event(cpu)
        context = self.context(session)
        session.slot = 0
        while (session.slot < EVENT_SLOTS - 1
               and context.event[session.slot].state != EVENT_NONE):
            session.slot += 1
        session.open_ = session.waiting = True
        session.waited_branches = session.waited_cycles = 0
        self.sessions += 1
        self.remote += session.home != cpu
        self.of_tasks += session.on_task
        self.waiting += 1
        self.resume(session, session.home)
        session.next_close = lane.branches + draw(lane, self.session_length)
        self.interrupt(session.home, OP_OPEN, PINNED | (EXCLUDE_GUEST if self.exclude_guest else 0)
                       | (ON_TASK if session.on_task else 0), cpu)
        if context.event[session.slot].state == EVENT_NONE:
            self.refused += 1
            self.forget(session)

    cdef void close_session(self, int cpu) noexcept nogil:
        """An event of a task that does not run now waits till it does."""
        cdef Lane* lane = &self.lane[cpu]
        cdef Session* session = &lane.session
        if session.cpu == NOWHERE:
            return
        self.forget(session)
        session.open_ = False
        session.next_open = lane.branches + draw(lane, self.session_every)
        if self.context(session).event[session.slot].state != EVENT_NONE:
            self.interrupt(session.cpu, OP_CLOSE,
                           session.slot | (ON_TASK if session.on_task else 0), cpu)

    cdef void switch_task(self, int cpu, int task) noexcept nogil:
        """The scheduler picks a task, and the events that are bound to tasks go with them."""
        cdef System* s = &self.world.system
        cdef Session* session
        cdef int i
        for i in range(s.cpus):
            session = &self.lane[i].session
            if session.open_ and session.on_task and session.cpu == cpu:
                self.pause(session)
                session.cpu = NOWHERE
        self.operation(cpu, OP_SWITCH, task)
        for i in range(s.cpus):
            session = &self.lane[i].session
            if (session.open_ and session.on_task and session.task == task
                    and (task or session.home == cpu)):
                self.resume(session, cpu)
        self.look(cpu)
