"""The clocks of some CPUs, and the perf tools that run on them."""

from libc.stdint cimport uint64_t

from pylbr.arbitration.microsteps cimport MAX_CPUS, Policy
from pylbr.host.perf cimport PerfContext
from pylbr.verify.world cimport World

cdef enum:
    NOWHERE = -1

cdef enum Cost:                 # in cycles
    C_BRANCH = 6
    C_WORLD = 750
    C_TASK = 2000
    C_IPI = 1000
    C_MSR = 100
    C_XSAVES = 300

ctypedef struct Session:        # of a perf tool: it opens an event and closes it again
    bint open_, waiting
    bint on_task                # the event is bound to a task, not to a CPU
    int task                    # which; 0 is the host's task of CPU `home`
    int home
    int slot                    # of the event, in its context
    int cpu                     # where the event counts; NOWHERE while its task does not run
    uint64_t next_open, next_close
    uint64_t since_branches, since_cycles       # of that CPU, when the wait there began
    uint64_t waited_branches, waited_cycles     # before that

ctypedef struct Lane:           # one CPU's way through the workload
    Session session             # of the tool that runs there
    uint64_t random, branches, cycles, until_task
    uint64_t at                 # place in the host's stream


cdef inline uint64_t draw(Lane* lane, uint64_t mean) noexcept nogil:
    """Uniform in 1 .. 2 * mean - 1."""
    lane.random ^= lane.random >> 12
    lane.random ^= lane.random << 25
    lane.random ^= lane.random >> 27
    return 1 + (lane.random * <uint64_t> 0x2545F4914F6CDD1D >> 33) % (2 * mean - 1)


cdef class Sessions:
    cdef readonly Policy policy
    cdef World world
    cdef Lane lane[MAX_CPUS]
    cdef int waiting            # sessions that do
    cdef bint exclude_guest
    cdef uint64_t session_every, session_length
    cdef uint64_t sessions, remote, of_tasks, refused, granted
    cdef uint64_t waits_branches, waits_cycles, longest_branches
    cdef uint64_t failures      # bits of Failure
    cdef void operation(self, int cpu, int op, int arg) noexcept nogil
    cdef PerfContext* context(self, const Session* session) noexcept nogil
    cdef void look(self, int cpu) noexcept nogil
    cdef void forget(self, Session* session) noexcept nogil
    cdef void pause(self, Session* session) noexcept nogil
    cdef void resume(self, Session* session, int cpu) noexcept nogil
    cdef void interrupt(self, int cpu, int op, int arg, int sender) noexcept nogil
    cdef void place_event(self, int cpu) noexcept nogil
    cdef void open_session(self, int cpu) noexcept nogil
    cdef void close_session(self, int cpu) noexcept nogil
    cdef void tool(self, int cpu) noexcept nogil
    cdef void switch_task(self, int cpu, int task) noexcept nogil
