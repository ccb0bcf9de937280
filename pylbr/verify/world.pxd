"""A system, what each owner must see of it, and what can happen next."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pylbr.arbitration.microsteps cimport MAX_CPUS, MAX_GUESTS, Cpu, Policy, System
from pylbr.cpu.hardware cimport Image

cpdef enum ActionKind:
    """Kind of an action, the unit of a search.

    Members
    -------
    STEP : the next micro-step of the CPU's operation
    HOST_BRANCH, GUEST_BRANCH : a branch of the host or of the running guest; argument: `Branch`
    SWITCH, ENTER, EXIT, MIGRATE : an operation begins
    GUEST : the guest executes an `Instruction` that does not exit
    OPEN, CLOSE, ENABLE, ROTATE : an operation on perf events begins
    NMI : a counter of the host overflows
    PEBS_RECORD : the processor writes a PEBS record of the host
    OVERFLOW : a counter of the host overflows, and its PMI comes later
    """
    STEP, HOST_BRANCH, SWITCH, ENTER, GUEST_BRANCH, GUEST, EXIT, OPEN, CLOSE, NMI, MIGRATE
    PEBS_RECORD, ENABLE, ROTATE, OVERFLOW

cdef enum:
    MAX_ACTIONS = 96
    MAX_KINDS = 12

cpdef enum Branch:
    """Argument bits of HOST_BRANCH and GUEST_BRANCH.

    Members
    -------
    KERNEL : taken at CPL 0
    FAULT : an exception, which loads LER
    RETURN, JUMP : a return or a jump; without either, a call
    """
    KERNEL = 1
    FAULT = 2
    RETURN = 4
    JUMP = 8

cpdef enum Feature:
    """What may happen besides branches, task switches, entries and exits.

    Members
    -------
    F_NMI : PMIs of the host
    F_MIGRATE : user space moves a vCPU's state
    F_XSAVES, F_XRSTORS : the guest's XSAVES and XRSTORS
    F_WRITE, F_DEPTH : WRMSR of a record, of IA32_LBR_DEPTH
    F_KERNEL : kernel branches and user-only filters
    F_FAULT : branches that load LER
    F_SMM, F_INIT, F_RESET, F_DB : SMM, INIT, reset and #DB of a vCPU
    F_NMI_BRANCH : an NMI that is no PMI, whose handler branches
    F_NESTED : guests run guests
    F_PEBS : adaptive PEBS records with the LBR group, of guest and host
    F_ROTATE : the multiplex timer
    F_ENABLE : events in the ERROR state are enabled again
    F_STACK : call-stack events, whose records are kept with the task
    F_VPMI : counters of a guest overflow, and of the host in guest mode
    F_HOST_FREEZE : perf sets FREEZE_LBRS_ON_PMI, and a PMI of the host comes after its overflow
    """
    F_NMI = 1
    F_MIGRATE = 2
    F_XSAVES = 4
    F_WRITE = 8
    F_DEPTH = 16
    F_KERNEL = 32
    F_FAULT = 64
    F_SMM = 128
    F_INIT = 256
    F_DB = 512
    F_NMI_BRANCH = 1024
    F_NESTED = 2048
    F_PEBS = 8192
    F_ROTATE = 16384
    F_ENABLE = 32768
    F_XRSTORS = 65536
    F_RESET = 131072
    F_STACK = 262144
    F_VPMI = 4096
    F_HOST_FREEZE = 524288

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
