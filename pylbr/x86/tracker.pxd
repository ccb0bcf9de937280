"""What is known of the blocks that ran: their table, and the transitions between them."""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from lbrcore.lbr cimport LBR_COND, LBR_NEAR_RET, lbr_branch, lbr_state
from pylbr.x86.block_flags cimport BLOCK_STORE, NO_BRANCH
from pylbr.x86.compiled_facts cimport block_facts
from pylbr.x86.condition cimport condition_of
from pylbr.x86.guest_code cimport code_source

cdef enum:
    NOT_KEPT = 0xFFFFFFFF
    FIRST_CODE = 1 << 16
    MOST_CODE = 1 << 26
    FIRST_PLACES = 1 << 12
    # A guest that writes code for ever must not fill the memory: 64 MB, then start afresh.
    MOST_PLACES = 1 << 20
    LONGEST = 15  # bytes of an instruction

cdef extern from *:
    """
    #define BLOCKS_NEVER UINT64_MAX
    """
    const uint64_t NEVER "BLOCKS_NEVER"     # a limit that is not reached

ctypedef struct block_info:
    uint64_t start
    uint64_t end
    uint64_t target     # of a direct branch, else 0
    uint32_t size       # 0: empty place of the table
    uint32_t instructions
    uint32_t last       # its last instruction, from `start` on
    uint32_t epoch      # of the tracker when it was classified or compared
    uint32_t code       # where its bytes are kept, or NOT_KEPT
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
    uint32_t epoch            # what was classified before has to be compared
    uint8_t* kept             # bytes of blocks
    uint32_t kept_size
    uint32_t kept_used
    uint64_t classified       # blocks, each time
    code_source code          # where a block's bytes come from without asking Python
    uint64_t instructions     # retired in all
    uint64_t marked           # of these, counted with a branch or by take_instructions
    uint64_t taken
    uint64_t not_taken
    uint64_t unexplained      # transitions that no instruction accounts for
    uint64_t look_at          # of instructions: no limit is reached before
    uint64_t instruction_limit
    uint64_t branch_limit     # of taken + not_taken
    bint wanted               # look at the next block, or the first with these flags
    uint64_t wanted_flags
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


# ---------------------------------------------------------------- table of blocks

cdef inline block_info* block_at(const block_tracker* t, uint64_t address) noexcept nogil:
    """The block that starts at `address`, or the empty place where it would lie."""
    cdef uint64_t i = (address * <uint64_t> 0x9E3779B97F4A7C15) >> 32
    cdef block_info* block
    while True:
        block = &t.table[i & t.mask]
        if block.start == address or block.size == 0:
            return block
        i += 1


cdef inline void set_aside(block_tracker* t) noexcept nogil:
    """Keep a copy of the block being left: its place is about to be lost."""
    if t.previous != NULL:
        t.leaving = t.previous[0]
        t.leaving.fell = t.leaving.went = NULL
        t.previous = &t.leaving


cdef inline void flush_blocks(block_tracker* t) noexcept nogil:
    """Forget all blocks."""
    set_aside(t)
    memset(t.table, 0, (t.mask + 1) * sizeof(block_info))
    t.used = t.kept_used = 0


cdef inline bint is_known(
    const block_tracker* t, const block_info* block, uint32_t size
) noexcept nogil:
    """The facts of the place `block` are those of the `size` bytes that are there now."""
    return block.size == size and block.epoch == t.epoch


cdef inline bint grow_table(block_tracker* t) noexcept nogil:
    cdef block_info* old = t.table
    cdef block_info* place
    cdef uint64_t places = t.mask + 1, i
    if places >= MOST_PLACES:
        flush_blocks(t)
        return True
    t.table = <block_info*> calloc(2 * places, sizeof(block_info))
    if t.table == NULL:
        t.table = old
        return False
    set_aside(t)
    t.mask = 2 * places - 1
    for i in range(places):
        if old[i].size:
            place = block_at(t, old[i].start)
            place[0] = old[i]
            place.fell = place.went = NULL
    free(old)
    return True


cdef inline block_info* new_place(
    block_tracker* t, uint64_t address, uint32_t size
) noexcept nogil:
    """The place of a block whose facts are about to be written; NULL without memory."""
    cdef block_info* place
    if 2 * t.used >= t.mask and not grow_table(t):
        return NULL
    place = block_at(t, address)
    if place == t.previous:
        set_aside(t)
    t.used += place.size == 0
    place.start, place.end, place.size, place.epoch = address, address + size, size, t.epoch
    place.fell = place.went = NULL
    place.code = NOT_KEPT
    t.classified += 1
    return place


cdef inline void set_facts(block_info* block, const block_facts* facts) noexcept nogil:
    block.last, block.target = <uint32_t> (facts.last - block.start), facts.target
    block.direct, block.instructions = facts.direct, facts.instructions
    block.condition, block.flags, block.cls = facts.condition, facts.flags, facts.cls


cdef inline void keep_code(block_tracker* t, block_info* block, const uint8_t* code) noexcept nogil:
    """Keep the bytes that the facts of `block` are of; without memory it is classified again."""
    cdef uint8_t* larger
    if t.kept_used + block.size > t.kept_size:
        if t.kept_size >= MOST_CODE:
            return
        larger = <uint8_t*> realloc(t.kept, 2 * t.kept_size + FIRST_CODE)
        if larger == NULL:
            return
        t.kept, t.kept_size = larger, 2 * t.kept_size + FIRST_CODE
    memcpy(t.kept + t.kept_used, code, block.size)
    block.code = t.kept_used
    t.kept_used += block.size


cdef inline bint is_same_code(
    const block_tracker* t, const block_info* block, const uint8_t* code, uint32_t size
) noexcept nogil:
    return block.size == size and block.code != NOT_KEPT and (
        memcmp(t.kept + block.code, code, size) == 0)


cdef inline uint64_t register_value(block_tracker* t, int which) noexcept nogil:
    cdef uint64_t value = 0
    if t.read != NULL:
        t.read(t.engine, which, &value)
    return value


cdef inline bint condition_holds(block_tracker* t, uint8_t condition) noexcept nogil:
    """Was a conditional branch taken, judged by the registers it left?  Without them, no."""
    if t.read == NULL:
        return False
    return condition_of(condition, register_value(t, t.flags), register_value(t, t.count))


cdef inline void remember(block_info* old, block_info* new, uint64_t address) noexcept nogil:
    """Keep a transition for the short way if nothing about it needs a closer look."""
    if address == old.end:
        if old.cls == NO_BRANCH or old.cls == LBR_COND and old.target != address:
            old.fell = new
    elif old.cls <= LBR_NEAR_RET and (not old.direct or address == old.target):
        # Inside itself, it might have been cut next time.
        if not old.start < address < old.end and (address != old.start or new == old):
            old.went = new


cdef inline bint cut_short(const block_info* old, const block_info* new) noexcept nogil:
    """Did `old` write its own code?  Then what is left of it is translated again, beginning
    with the instruction that stores, alone."""
    return (new.flags & BLOCK_STORE) != 0 and (
        old.start < new.start < old.end or old.start == new.start and old.size > new.size)


cdef inline void set_look(block_tracker* t) noexcept nogil:
    cdef uint64_t left = t.branch_limit - t.taken - t.not_taken
    if left > t.instruction_limit - t.instructions:
        left = t.instruction_limit - t.instructions
    # The block that is being left is not counted yet.
    t.look_at = 0 if t.wanted else NEVER if left > NEVER - t.instructions else t.instructions + left
