"""A system, what each owner must see of it, and what can happen next."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pylbr.arbitration.microsteps cimport MAX_CPUS, MAX_GUESTS, Cpu, Policy, System
from pylbr.cpu.hardware cimport Image

cpdef enum ActionKind:
    STEP, HOST_BRANCH, SWITCH, ENTER, GUEST_BRANCH, GUEST, EXIT, OPEN, CLOSE, NMI, MIGRATE
    PEBS_RECORD, ENABLE, ROTATE

cdef enum:
    MAX_ACTIONS = 96
    MAX_KINDS = 12

# Argument bits of HOST_BRANCH and GUEST_BRANCH
cpdef enum Branch:
    KERNEL = 1
    FAULT = 2
    RETURN = 4
    JUMP = 8                    # else it is a call

# What may happen besides branches, task switches, entries and exits
cpdef enum Feature:
    F_NMI = 1
    F_MIGRATE = 2
    F_XSAVES = 4
    F_WRITE = 8                 # WRMSR of a record
    F_DEPTH = 16
    F_KERNEL = 32               # kernel branches and user-only filters
    F_FAULT = 64                # branches that load LER
    F_SMM = 128
    F_INIT = 256
    F_DB = 512
    F_NMI_BRANCH = 1024         # an NMI that is no PMI, whose handler branches
    F_NESTED = 2048             # guests run guests
    F_PEBS = 8192               # adaptive PEBS records with the LBR group, of guest and host
    F_ROTATE = 16384            # the multiplex timer
    F_ENABLE = 32768            # events in the ERROR state are enabled again
    F_XRSTORS = 65536
    F_RESET = 131072            # of a vCPU
    F_STACK = 262144            # call-stack events: returns and jumps, records kept with a task
    F_VPMI = 4096               # counters of a guest overflow, and of the host in guest mode

ctypedef struct Action:
    uint8_t kind, cpu, arg

ctypedef struct Ideal:          # a facility that its owner never had to share
    Image image
    uint8_t on, user_only, call_stack, smm_on
    uint8_t freeze              # FREEZE_LBRS_ON_PMI is set
    uint8_t frozen              # LBR_FRZ is set
    uint8_t level2              # as Vcpu.level2
    uint64_t vmcs12             # the control register in L1's vmcs12; legacy: only whether on

ctypedef struct Options:
    uint32_t features
    uint8_t kinds
    uint8_t events              # how many may be open on a CPU at once
    uint8_t kind[MAX_KINDS]     # of the events that perf may open

ctypedef struct World:
    System system
    Ideal guest[MAX_GUESTS]
    Ideal host[MAX_CPUS]
    # The host's window on a task that does not run: a vCPU's thread, the host's own
    Ideal kept[MAX_GUESTS]
    Ideal kept_host[MAX_CPUS]
    uint16_t serial[1 + MAX_GUESTS]

cdef enum Property:
    P1, P2, P3, P4, P5, P6, P7, P1N, P20, P20B, P21, P22, P23, PROPERTIES

cdef int world_init(
    World* w, Policy policy, config, int cpus, int guests, int guest_depth=*) except -1
cdef int enabled(World* w, Policy policy, const Options* options, Action* out) noexcept nogil
cdef uint32_t apply(World* w, Policy policy, const Options* options,
                    Action action) noexcept nogil
cdef uint32_t check_state(World* w, Policy policy, const Options* options) noexcept nogil
