"""Host perf's view of one facility: events, contexts, which are scheduled (spec 5)."""

from libc.stdint cimport uint8_t, uint64_t

from pylbr.cpu.hardware cimport Hardware, Image

cdef enum:
    EVENT_SLOTS = 2

cdef enum EventState:
    EVENT_NONE, EVENT_OFF, EVENT_INACTIVE, EVENT_ACTIVE, EVENT_ERROR

cpdef enum EventFlag:
    """Attributes of a perf event.

    Members
    -------
    PINNED : must be scheduled, or goes to ERROR
    EXCLUDE_GUEST, EXCLUDE_HOST : does not count in the guest, or in the host
    VLBR : KVM's event for a guest's LBRs, fake counter 58
    USER_ONLY : branch filter that differs from the other events'
    CALL_STACK : call-stack mode; records are saved and restored with the task
    PEBS : samples are adaptive PEBS records with the LBR group
    """
    PINNED = 1
    EXCLUDE_GUEST = 2
    EXCLUDE_HOST = 4
    VLBR = 8
    USER_ONLY = 16
    CALL_STACK = 32
    PEBS = 128

# How events share the facility
cdef enum SharingRule:
    FILTER_VLBR = 1             # the vLBR event goes through the shared filter register
    FILTER_EXCLUSION = 2        # exclude_guest is part of the filter

# Why the records must go
cdef enum FreshReason:
    FRESH_USER = 1              # a first user came that never ran (intel_pmu_lbr_add)
    FRESH_FLAGS = 2             # the events now scheduled ask for something else

ctypedef struct Event:
    uint8_t state
    uint8_t flags
    uint8_t ran                 # has been ACTIVE before (total_time_running != 0)

ctypedef struct PerfContext:    # of a CPU, or of a task
    Event event[EVENT_SLOTS]
    Image saved                 # task context data: the records, while scheduled out
    uint8_t saved_valid
    uint8_t saved_cut           # ... and of that window records are missing

ctypedef struct PerfCpu:
    PerfContext context
    uint8_t users               # lbr_users: ACTIVE events that use the LBRs, vLBR too
    uint8_t hosts               # those of them that are not vLBR
    uint8_t pebs                # lbr_pebs_users: hosts that PEBS records serve, not the handler
    uint8_t fresh               # FreshReason bits, of the last scheduling
    uint8_t flags               # EXCLUDE_GUEST if every host user asks for it; their filter
    uint8_t vlbr                # bit 58 of intel_ctrl_guest_mask: a vLBR event is ACTIVE
    uint8_t granted             # perf's state is in the registers
    uint8_t cut                 # a window was cut since the records were reset
    uint64_t programmed         # control value that perf has put in; 0 when off
    uint8_t freezes             # architectural LBRs: the models have FREEZE_LBRS_ON_PMI in
    uint8_t freeze              # ... and this is how perf last set it
    uint8_t frozen              # LBR_FRZ of records that a policy has put aside

cdef Event* perf_open(PerfContext* context, uint8_t flags) noexcept nogil
cdef void perf_close(Event* event) noexcept nogil
cdef void perf_rotate(PerfContext* context) noexcept nogil
cdef bint perf_needs_rotation(const PerfContext* context) noexcept nogil
cdef void perf_schedule(PerfCpu* cpu, PerfContext* task, int rules) noexcept nogil
cdef void perf_deschedule(PerfContext* context) noexcept nogil
cdef bint perf_is_guest_event(const Event* event) noexcept nogil
cdef uint64_t perf_control(const PerfCpu* cpu, const Hardware* hw) noexcept nogil
cdef void perf_enable(PerfCpu* cpu, Hardware* hw) noexcept nogil
cdef void perf_disable(PerfCpu* cpu, Hardware* hw) noexcept nogil
