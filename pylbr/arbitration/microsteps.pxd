"""The whole system as one plain structure: processors, tasks, perf events, vCPUs, and the
operations in flight.  It is copied with memcpy, hashed by `pylbr.verify.codec` and advanced one
micro-step at a time, by the explorer and by the simulation alike.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_entry
from pylbr.cpu.hardware cimport Hardware, Image
from pylbr.host.perf cimport PerfContext, PerfCpu
from pylbr.kvm.vcpu cimport Vcpu

cdef enum:
    MAX_CPUS = 2
    MAX_GUESTS = 4
    MAX_FRAMES = 4
    DONE = -1

# Whose records the registers hold
cdef enum:
    OWNER_NONE = 0
    OWNER_HOST = 1
    OWNER_GUEST = 2             # + vCPU

cpdef enum Operation:
    """What a CPU can be doing, as a list of micro-steps.

    Members
    -------
    OP_NONE : no operation
    OP_SWITCH : switch to another task
    OP_ENTER : enter the guest, from the run loop of the hypervisor
    OP_EXIT : VM exit, and the emulation of what caused it
    OP_OPEN, OP_CLOSE : IPI that installs an event, or removes it
    OP_MIGRATE : user space moves the state of a vCPU to a new one
    OP_ENABLE : IPI that enables an event in the ERROR state again
    OP_ROTATE : the multiplex timer
    """
    OP_NONE, OP_SWITCH, OP_ENTER, OP_EXIT, OP_OPEN, OP_CLOSE, OP_MIGRATE
    OP_ENABLE, OP_ROTATE

# The micro-steps of the operations, eight numbers for each.  An operation's first is taken with the
# action that begins it.
cpdef enum Step:
    """Micro-steps of the operations.

    Members
    -------
    TASK_OUT : interrupts go off, perf's events of the old task are removed
    VCPU_PUT : KVM's notifier that the thread is scheduled out
    TASK_IN : perf's events of the new task are scheduled
    SWITCH_IRQS_ON : interrupts are switched on
    VCPU_LOAD : KVM's notifier that the thread is scheduled in
    SAFE_POINT : the run loop serves requests
    RECHECK : interrupts go off, requests are looked for again
    PREPARE_ENTRY : the last steps before VM entry
    VM_ENTRY : the processor enters the guest
    VM_EXIT : the processor leaves the guest
    AFTER_EXIT : the guest's values are saved
    EXIT_IRQS_ON : interrupts are switched on
    EMULATE : what the guest tried to do is emulated
    RESCHEDULE : perf's events are scheduled again, in an IPI or the timer
    IRQ_RETURN : the IPI or timer interrupt returns
    MIGRATE_PUT : as VCPU_PUT
    MOVE_STATE : user space reads the state, and sets it in a new vCPU
    MIGRATE_LOAD : as VCPU_LOAD
    """
    TASK_OUT = 8
    VCPU_PUT
    TASK_IN
    SWITCH_IRQS_ON
    VCPU_LOAD
    SAFE_POINT = 16
    RECHECK
    PREPARE_ENTRY
    VM_ENTRY
    VM_EXIT = 24
    AFTER_EXIT
    EXIT_IRQS_ON
    EMULATE
    RESCHEDULE = 32
    IRQ_RETURN
    MIGRATE_PUT = 48
    MOVE_STATE
    MIGRATE_LOAD

cpdef enum Instruction:
    """What a guest does; also the argument of OP_EXIT.

    Members
    -------
    EXIT_IRQ : any VM exit with nothing to emulate
    GUEST_READ, GUEST_WRITE : RDMSR or WRMSR of a record
    GUEST_ENABLE, GUEST_DISABLE : recording is switched on or off
    GUEST_DEPTH : WRMSR of IA32_LBR_DEPTH, which resets the records
    GUEST_XSAVES, GUEST_XRSTORS : XSAVES or XRSTORS of component 15
    GUEST_USER_FILTER : the control register selects user branches alone
    GUEST_INIT, GUEST_RESET : INIT or reset of the vCPU
    GUEST_SMI, GUEST_RSM : entry to SMM, and RSM
    GUEST_DB : a #DB is delivered
    GUEST_VMLAUNCH, GUEST_VMLAUNCH_CONTROLS : L1 enters L2, without or with the LBR controls
    GUEST_VMCALL : L2 exits to L1
    GUEST_DEBUGCTL : the guest hypervisor writes IA32_DEBUGCTL in its vmcs12
    GUEST_FREEZE : the guest sets FREEZE_LBRS_ON_PMI
    GUEST_PMI : a counter of the guest overflows
    GUEST_ACK : the guest clears LBR_FRZ
    GUEST_PEBS : the processor writes a PEBS record of the guest
    EXIT_PMI : a counter of the host overflows in guest mode
    """
    EXIT_IRQ, GUEST_READ, GUEST_ENABLE, GUEST_DISABLE, GUEST_WRITE, GUEST_DEPTH, GUEST_XSAVES
    GUEST_USER_FILTER, GUEST_INIT, GUEST_SMI, GUEST_RSM, GUEST_DB
    GUEST_VMLAUNCH, GUEST_VMLAUNCH_CONTROLS, GUEST_VMCALL, GUEST_DEBUGCTL
    GUEST_FREEZE, GUEST_PMI, GUEST_ACK, GUEST_PEBS
    GUEST_XRSTORS, GUEST_RESET
    EXIT_PMI

cpdef enum Exposure:
    """How records become visible.

    Members
    -------
    EXPOSED_NONE : they do not
    EXPOSED_RDMSR : the guest reads an MSR
    EXPOSED_XSAVES : the guest's XSAVES stores them
    EXPOSED_SAVED_STATE : user space reads the vCPU's state
    EXPOSED_SAMPLE : the host's PMI handler takes a sample
    EXPOSED_PEBS : a PEBS record contains them
    """
    EXPOSED_NONE, EXPOSED_RDMSR, EXPOSED_XSAVES, EXPOSED_SAVED_STATE, EXPOSED_SAMPLE
    EXPOSED_PEBS

ctypedef struct Frame:
    uint8_t op
    uint8_t step                # Step that comes next
    uint8_t part                # of it
    uint8_t arg

ctypedef struct Observation:
    uint8_t exposure
    uint8_t guest               # of the view, 0 the host
    uint8_t instruction         # of the guest, just retired
    uint8_t present             # the sample carries records at all
    uint8_t cut                 # the view is marked: records may be missing
    uint8_t failures            # bits of Failure
    Image image

# Properties that a step itself can find broken
cdef enum Failure:
    FAIL_CHECK_AND_USE = 1      # P6
    FAIL_PROGRESS = 2           # P22
    FAIL_IDEMPOTENT = 4         # P23

ctypedef struct Cpu:
    Hardware hw
    PerfCpu perf
    PerfContext host_task       # of the host's task, which stays on this CPU
    Frame frame[MAX_FRAMES]
    uint8_t frames
    uint8_t task                # 0 the host's task, 1 + v the thread of vCPU v
    uint8_t guest               # 1 + v while in guest mode
    uint8_t irqs                # interrupts are on
    uint8_t owner
    uint8_t wanted              # perf has asked for the LBRs and waits
    uint8_t pmi                 # a counter of the host has overflowed, its PMI has not come yet
    uint8_t scratch             # a policy's local variable across micro-steps
    lbr_entry operand           # of the guest instruction being emulated

ctypedef struct System:
    Cpu cpu[MAX_CPUS]
    Vcpu vcpu[MAX_GUESTS]
    PerfContext thread[MAX_GUESTS]  # of the vCPUs' threads
    Observation seen
    uint8_t cpus, guests
    uint8_t depth               # of the guests' stacks
    uint8_t host_depth          # of the host's; the same unless the policy keeps them apart
    uint32_t features           # Feature bits of `pylbr.verify.world`: what the state holds


cdef class Policy:
    """How host and guests share one facility.  A hook runs one micro-step per call: `pc` is the
    number of its part, the result that of the next, or DONE."""
    cdef readonly str name
    cdef readonly str problem               # what a hook in Python raised; None: nothing
    cdef bint stopped                       # there is a problem: a search ends
    # What it documents
    cdef readonly tuple claims              # properties that it promises; None: all of them
    cdef readonly tuple by_design           # properties that it breaks in so many ways that a
    #                                         search continues after them
    cdef readonly bint legacy               # needs legacy LBRs
    cdef readonly bint guest_short          # records a guest misses show as empty entries
    cdef readonly bint guest_flag           # ... and by a flag
    cdef readonly bint host_short           # the same of the host's samples
    cdef readonly bint host_flag
    cdef readonly bint serves_at_entry      # a VM entry is a safe point
    cdef readonly int sharing               # SharingRule bits for perf's scheduling
    cdef readonly bint refuses_guest_tracing
    cdef readonly bint any_depth            # guests may have another depth than the host
    cdef readonly bint mediated             # a vCPU that is loaded has the PMU, PMIs and all
    cdef readonly bint freeze_clears_enable  # the guest's PMU is of version 2: no LBR_FRZ
    cdef readonly bint keeps_debugctl       # user space saves a legacy guest's IA32_DEBUGCTL
    cdef readonly bint lazy                 # LBRs are passed through while the guest has LBREn
    cdef readonly bint guest_pebs           # PEBS_BASELINE is offered: records may hold LBRs
    cdef readonly bint nested_controls      # L1 is offered the VMX controls that touch the LBRs

    cdef int fail(self, str problem) except -1
    cdef void perf_update(self, System* s, Cpu* c) noexcept nogil
    cdef void task_out(self, System* s, Cpu* c) noexcept nogil
    cdef void task_in(self, System* s, Cpu* c) noexcept nogil
    cdef int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil
    cdef int vcpu_put(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil
    cdef int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil
    cdef bint pending(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil
    cdef int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil
    cdef int emulate(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil
    cdef void pmi(self, System* s, Cpu* c) noexcept nogil
    cdef void pebs(self, System* s, Cpu* c) noexcept nogil
    cdef void guest_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void deliver_pmi(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void save_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void restore_state(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef bint guest_traced(self, System* s, Cpu* c) noexcept nogil
    cdef bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) noexcept nogil

cdef void start(System* s, Cpu* c, int op, int arg) noexcept nogil
cdef bint step(System* s, Cpu* c, Policy policy) noexcept nogil
cdef void guest_image(const Cpu* c, uint64_t ctl, uint64_t depth, Image* image) noexcept nogil
cdef void guest_execute(System* s, Cpu* c, int instruction) noexcept nogil
cdef void nmi(System* s, Cpu* c, Policy policy) noexcept nogil
cdef void pebs_record(System* s, Cpu* c, Policy policy) noexcept nogil
cdef void vcpu_reset(System* s, Vcpu* v) noexcept nogil
cdef uint64_t guest_control(int instruction, uint64_t old, bint legacy) noexcept nogil
cdef int vcpu_index(System* s, Vcpu* v) noexcept nogil
cdef PerfContext* current_context(System* s, Cpu* c) noexcept nogil
cdef void use_hardware(System* s, Cpu* c, int owner) noexcept nogil
