"""Executed blocks in, branches out; the hook that a translating emulator calls.

    from pylbr.x86.blocks cimport BlockRecorder, blocks_enter

A block is what the emulator translated as one: straight code whose last instruction may be a
branch.  Thread rule: as the `lbr_state` that it feeds.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbrcore.lbr cimport LbrState, lbr_branch, lbr_state

# Facts of a block beside its branch, from `classify`.
cdef enum block_flag:
    BLOCK_REP = 1       # last instruction repeats: the next block may be itself again
    BLOCK_FLUSH = 2     # changes what code an address means: CR0, CR3, CR4, INVLPG
    BLOCK_STORE = 4     # one instruction that stores: what is left of a block that wrote itself

# Conditions beyond the sixteen of Jcc.
cdef extern from "insn.h":
    enum:
        CONDITION_LOOPNE "X86_LOOPNE"
        CONDITION_LOOPE "X86_LOOPE"
        CONDITION_LOOP "X86_LOOP"
        CONDITION_JRCXZ "X86_JRCXZ"
        NO_BRANCH "X86_NO_BRANCH"

cdef enum:
    CONDITION_32BIT = 32  # counts in ECX

ctypedef struct block_info:
    uint64_t start
    uint64_t end
    uint64_t last       # its last instruction
    uint64_t target     # of a direct branch, else 0
    uint32_t size       # 0: empty place of the table; STALE: to be classified again
    uint32_t instructions
    uint8_t cls         # enum lbr_class, or NO_BRANCH
    uint8_t condition
    uint8_t flags
    uint8_t direct
    block_info* fell    # the block entered last time it fell through, or NULL
    block_info* went    # the block entered last time its near branch was taken, or NULL

ctypedef int (*register_read)(void* engine, int which, void* value) noexcept nogil

ctypedef struct block_tracker:
    lbr_state* lbr            # NULL: branches go to the log alone
    block_info* previous      # entered last and not known to be left; NULL: nothing to conclude
    block_info* table
    uint64_t mask             # places of the table - 1
    uint64_t used
    uint64_t instructions     # retired in all
    uint64_t marked           # of these, counted with a branch or by take_instructions
    uint64_t taken
    uint64_t not_taken
    uint64_t unexplained      # transitions that no instruction accounts for
    uint64_t look_at          # of instructions: no limit is reached before
    uint64_t instruction_limit
    uint64_t branch_limit     # of taken + not_taken
    uint64_t event_from       # an exception or interrupt whose handler was not entered yet
    uint64_t event_at         # where execution continues, or an instruction after it,
    uint8_t event_served      # if the emulator serves the event by itself, which it may
    lbr_branch* log
    uint32_t log_size
    uint32_t log_used
    bint logging
    int32_t event_class       # -1: none
    uint8_t cpl
    register_read read
    void* engine
    int cs, flags, count      # numbers of CS, EFLAGS and RCX for `read`
    void* owner               # the BlockRecorder
    block_info leaving        # copy of a block whose place was lost

cdef void blocks_enter(
    void* engine, uint64_t address, uint32_t size, void* tracker) noexcept nogil
cdef void blocks_translated(
    void* engine, void* block, void* previous, void* tracker) noexcept nogil


cdef class BlockRecorder:
    cdef block_tracker tracker
    cdef readonly LbrState state
    cdef object _classify, _attention, _drain, _report, _error
