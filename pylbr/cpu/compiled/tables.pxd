"""``lbrcore_cpu.h``: models as tables, and the state of a processor."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_config, lbr_entry, lbr_state, lbr_xsave_layout


cdef extern from "lbrcore_cpu.h" nogil:
    enum:
        LBR_PMI, LBR_CPU_COUNTERS, LBR_CPU_FIXED, LBR_STATE_MAX, LBR_NO_BRANCH, LBR_VALUES
        LBR_VALUE_IA32_XSS, LBR_VALUE_IA32_RTIT_CTL

    enum lbr_accessor:
        LBR_ACC_PLAIN, LBR_ACC_CANONICAL, LBR_ACC_CONSTANT, LBR_ACC_CAPABILITIES, LBR_ACC_RTIT
        LBR_ACC_DEBUGCTL
        LBR_ACC_LBR_CTL, LBR_ACC_LBR_DEPTH, LBR_ACC_LBR_SELECT, LBR_ACC_LBR_TOS, LBR_ACC_LBR_FROM
        LBR_ACC_LBR_TO, LBR_ACC_LBR_INFO, LBR_ACC_LER_FROM, LBR_ACC_LER_TO, LBR_ACC_LER_INFO
        LBR_ACC_LEGACY_LBR_SINGLE, LBR_ACC_LEGACY_LBR_FROM, LBR_ACC_LEGACY_LBR_TO
        LBR_ACC_LEGACY_LBR_INFO, LBR_ACC_LEGACY_LER_FROM, LBR_ACC_LEGACY_LER_TO
        LBR_ACC_AMD_CONFIG, LBR_ACC_AMD_FROM, LBR_ACC_AMD_TO
        LBR_ACC_PMC, LBR_ACC_PMC_FULL, LBR_ACC_FIXED, LBR_ACC_EVTSEL, LBR_ACC_FIXED_CTRL
        LBR_ACC_GLOBAL_CTRL, LBR_ACC_GLOBAL_STATUS, LBR_ACC_GLOBAL_RESET, LBR_ACC_GLOBAL_SET
        LBR_ACC_GLOBAL_INUSE, LBR_ACC_PEBS_ENABLE

    enum lbr_model_flag:
        LBR_MODEL_ARCH, LBR_MODEL_LEGACY, LBR_MODEL_AMD, LBR_MODEL_INTEL, LBR_MODEL_TSX
        LBR_MODEL_SGX, LBR_MODEL_NETBURST, LBR_MODEL_PT_EXCLUDES_LBR, LBR_MODEL_SIGNEXT_QUIRK
        LBR_MODEL_EFFECTIVE, LBR_MODEL_FREEZE_WHILE_SMM, LBR_MODEL_DEEP_CSTATE_RESET
        LBR_MODEL_SINGLE, LBR_MODEL_TO_CYCLES, LBR_MODEL_NONCANONICAL_FAULTS
        LBR_MODEL_LER_IGNORES_HIGH_BITS, LBR_MODEL_FREEZE_CLEARS_LBREN
        LBR_MODEL_SELECT_SURVIVES, LBR_MODEL_SURVIVES_WARM_RESET, LBR_MODEL_DB_CLEARS_ENABLE
        LBR_MODEL_OPT_OUT_STOPS_COUNTERS, LBR_MODEL_HOST_ABSENT_READS_ZERO

    ctypedef struct lbr_register:
        const char* name
        uint32_t first
        uint8_t count, stride, accessor, value, of_lbr, guest_writes
        uint64_t writable, reserved, reset

    ctypedef struct lbr_leaf:
        uint32_t leaf, subleaf, eax, ebx, ecx, edx

    ctypedef struct lbr_event:
        uint8_t select, umask, mispredicted, unit
        uint32_t classes

    ctypedef struct lbr_model:
        const char* name
        const char* absent_rule
        const char* depth_rule
        const char* format_rule
        lbr_config config
        uint32_t flags
        uint8_t linear_width, from_flags, amd_valid, lbr_format
        uint8_t pmu_version, counters, counter_width, fixed, fixed_width, pebs_format
        uint8_t registers_count, leaves_count, events_count
        uint8_t fixed_unit[4]
        uint32_t fixed_classes[4]
        uint32_t max_leaf, max_extended
        uint64_t xcr0, xss
        const uint8_t* registers
        const lbr_leaf* leaves
        const lbr_event* events
        lbr_xsave_layout layout

    ctypedef struct lbr_counter:
        uint64_t table
        uint8_t need, unit, place, logs

    ctypedef struct lbr_block:
        uint64_t start, end, last, target
        uint32_t instructions
        uint8_t cls, direct, repeats, condition

    # Cython's own form of a callback to a struct that it is part of
    ctypedef void (*lbr_pmi_callback)(lbr_cpu* cpu, void* context) noexcept nogil

    ctypedef struct lbr_cpu:
        const lbr_model* model
        lbr_state lbr
        uint64_t debugctl, xcr0
        uint64_t pmc[8]
        uint64_t evtsel[8]
        uint64_t fixed[4]
        uint64_t fixed_ctrl, global_ctrl, status, pebs_enable
        uint64_t value[7]
        lbr_counter armed[12]
        uint64_t interrupts
        uint64_t smm_debugctl, enclave_entry, cs_base
        lbr_pmi_callback on_pmi
        void* on_pmi_context
        uint8_t armed_count, logging, stops, in_smm, smm_lbren, smm_held, enclave, in_tsx
        uint8_t long_mode
        const lbr_block* block
        uint64_t since, event_from
        uint8_t event_class, cpl, held

    ctypedef struct lbr_fault:
        const char* rule
        uint64_t bits


cdef inline bint lbr_has(const lbr_cpu* cpu, uint32_t flag) noexcept nogil:
    """Whether the processor's model has a flag."""
    return (cpu.model.flags & flag) != 0
