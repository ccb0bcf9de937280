"""Branch predictors as models: gshare, and a small TAGE."""

from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_branch

cdef enum:
    GSHARE_BITS = 14
    BASE_BITS = 13
    TAGGED_BITS = 10
    TAG_BITS = 10
    TABLES = 4
    INDIRECT_BITS = 10
    STACK_DEPTH = 16

ctypedef struct tagged_entry:
    uint16_t tag
    int8_t counter  # -4..3; taken if >= 0
    uint8_t useful  # 0..3

ctypedef struct predictor_state:
    bint tage
    uint64_t history           # directions of conditional branches, newest in bit 0
    uint64_t path              # of indirect targets
    uint8_t counters[1 << GSHARE_BITS]  # 0..3, taken if >= 2; TAGE's base uses the first part
    tagged_entry tables[TABLES][1 << TAGGED_BITS]
    uint64_t targets[1 << INDIRECT_BITS]
    uint64_t calls[STACK_DEPTH]         # addresses of the calls
    uint32_t top

cdef bint predictor_step(predictor_state* state, const lbr_branch* branch) noexcept nogil
