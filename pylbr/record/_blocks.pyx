"""Exact branches from the numbers of the blocks that ran.

A block contains where it ends and with what kind of branch; the block after it is where that
branch went.  The steps in between that no branch explains are known too: signals carry the
interrupted address, a `rep` instruction enters its own block again, blocks are cut at 512
instructions and page ends, and QEMU leaves a block half-way when it must repeat one
instruction alone.  `blocks_reference` is the plain twin.
"""

cimport cython
from libc.string cimport memcpy, memset

import numpy as np

from lbrcore import BRANCH_DTYPE
from lbrcore.lbr cimport (
    LBR_COND, LBR_EXCEPTION, LBR_INTERRUPT, LBR_IRET, LBR_NEAR_REL_CALL,
    LBR_NEAR_REL_JMP, LBR_NOT_TAKEN, LBR_SOFT_INT, LBR_SYSCALL, LBR_SYSRET, LBR_ZERO_CALL,
)

from pylbr.record.wire_numbers import BLOCK_DTYPE, KERNEL_ENTRY, KERNEL_EXIT

cdef uint64_t ENTRY = KERNEL_ENTRY
cdef uint64_t EXIT = KERNEL_EXIT


cdef inline int emit(block_walk* walk, lbr_branch* out, uint64_t from_, uint64_t to,
                     uint8_t cls, uint8_t cpl_from, uint8_t cpl_to) noexcept nogil:
    out.from_ = from_
    out.to = to
    out.cycles = <uint32_t> min(walk.cycles, 0xFFFFFFFFu) if walk.timed else 0
    out.instructions = walk.instructions
    out.cls = cls
    out.flags = 0
    out.cpl_from = cpl_from
    out.cpl_to = cpl_to
    memset(&out.events[0], 0, 4)
    walk.cycles = 0
    walk.instructions = 0
    return 1


cdef inline void retire(block_walk* walk, const wire_block* block) noexcept nogil:
    walk.instructions += block.instructions
    walk.cycles += block.cost


cdef void retire_before(block_walk* walk, const wire_block* block, uint64_t address) noexcept nogil:
    """Retire the instructions of `block` before the one at `address`."""
    cdef uint64_t at = block.start
    cdef uint32_t n = 0
    if block.instructions == 0 \
            or <uint64_t> block.lengths + block.instructions > walk.length_bytes:
        return
    while n < block.instructions and at < address:
        at += walk.lengths[block.lengths + n]
        n += 1
    walk.instructions += n
    walk.cycles += <uint64_t> block.cost * n // block.instructions


cdef inline bint inside(const wire_block* block, uint64_t address) noexcept nogil:
    return block.start <= address < block.start + block.size


cdef int straight_on(block_walk* walk, const wire_block* block, uint64_t to) noexcept nogil:
    """The step from a block that ends without a branch, or is left before its end."""
    if to == block.start + block.size:
        retire(walk, block)
    elif inside(block, to):
        # A `rep` that continues has not retired; so has not what QEMU is about to repeat.
        retire_before(walk, block, to)
    else:
        walk.gaps += 1
        walk.instructions = 0
        walk.cycles = 0
    return 0


cdef inline uint8_t cpl_at(const block_walk* walk, uint64_t address) noexcept nogil:
    return 0 if walk.system and address >> 63 else 3


cdef bint is_gate(const block_walk* walk, uint64_t address) noexcept nogil:
    cdef Py_ssize_t low = 0, high = walk.gate_count, middle
    while low < high:
        middle = (low + high) // 2
        if walk.gates[middle] < address:
            low = middle + 1
        else:
            high = middle
    return low < walk.gate_count and walk.gates[low] == address


cdef int leave(block_walk* walk, const wire_block* block, uint64_t to, bint alone,
               lbr_branch* out) noexcept nogil:
    """The step from `block` to `to`; `alone`: one instruction is translated for itself there."""
    cdef uint64_t last = block.start + block.last, end = block.start + block.size
    cdef uint8_t cls = block.cls, cpl = cpl_at(walk, last), cpl_to = cpl_at(walk, to)
    if cls != LBR_SOFT_INT and is_gate(walk, to):
        # An interrupt or exception: where the block would have led is not known.
        walk.gaps += 1
        walk.instructions = 0
        walk.cycles = 0
        return 0
    if cls == LBR_COND and to == end:
        retire(walk, block)
        return emit(walk, out, last, to, LBR_NOT_TAKEN, cpl, cpl_to)
    if cls == LBR_COND or cls == LBR_NEAR_REL_JMP or cls == LBR_NEAR_REL_CALL:
        if to != block.target or (alone and to == block.start and block.instructions > 1):
            return straight_on(walk, block, to)
        if cls == LBR_NEAR_REL_CALL and to == end:
            cls = LBR_ZERO_CALL
    elif cls == WIRE_NO_BRANCH:
        return straight_on(walk, block, to)
    retire(walk, block)
    if (cls == LBR_SYSCALL or cls == LBR_SOFT_INT) and not walk.system:
        emit(walk, out, last, ENTRY, cls, 3, 0)
        return 1 + emit(walk, out + 1, EXIT, to,
                        LBR_SYSRET if cls == LBR_SYSCALL else LBR_IRET, 0, 3)
    return emit(walk, out, last, to, cls, cpl, cpl_to)


cdef int deliver(block_walk* walk, const wire_block* block, uint64_t handler,
                 lbr_branch* out) noexcept nogil:
    """The way into a signal handler, from the address in the event."""
    cdef uint64_t last = block.start + block.last
    cdef int n = 0
    if block.cls == LBR_SYSCALL or (block.cls == LBR_SOFT_INT and not
                                    (inside(block, walk.address) and walk.address < last)):
        # The kernel delivers on the way out, or because of the instruction itself.
        retire(walk, block)
        n = emit(walk, out, last, ENTRY, block.cls, 3, 0)
    else:
        # A block that ends in a software interrupt comes here only if that has not run.
        if (walk.event == WIRE_SYNCHRONOUS or block.cls == LBR_SOFT_INT) and (
                inside(block, walk.address)):
            retire_before(walk, block, walk.address)
        else:
            n = leave(walk, block, walk.address, False, out)
        n += emit(walk, out + n, walk.address, ENTRY,
                  LBR_EXCEPTION if walk.event == WIRE_SYNCHRONOUS else LBR_INTERRUPT, 3, 0)
    return n + emit(walk, out + n, EXIT, handler, LBR_IRET, 0, 3)


cdef int walk_word(block_walk* walk, uint32_t word, lbr_branch* out) noexcept nogil:
    """Take one word of a ring; writes at most WALK_BRANCHES and returns their number, or
    WALK_UNKNOWN, which leaves the walk as it was."""
    cdef wire_block copies[2]
    cdef const wire_block* block
    cdef const wire_block* next_block
    cdef int n = 0
    if word & WIRE_EVENT:
        walk.event = word & (WIRE_PAYLOAD - 1)
        walk.address = walk.payload
        walk.payload = walk.payload_bits = 0
        return 0
    if word & WIRE_PAYLOAD:
        if walk.payload_bits < 64:
            walk.payload |= <uint64_t> (word & (WIRE_PAYLOAD - 1)) << walk.payload_bits
        walk.payload_bits += WIRE_PAYLOAD_BITS
        return 0
    if word == 0 or word >= walk.block_count:
        return WALK_UNKNOWN
    if walk.previous:
        # Copies: the program may write to the table between a check and the use.
        memcpy(&copies[0], &walk.blocks[walk.previous], sizeof(wire_block))
        memcpy(&copies[1], &walk.blocks[word], sizeof(wire_block))
        block, next_block = &copies[0], &copies[1]
        if walk.event == 0:
            n = leave(walk, block, next_block.start,
                      next_block.instructions == 1 and word != walk.previous, out)
        elif walk.event == WIRE_SIGRETURN and block.cls == LBR_SYSCALL:
            retire(walk, block)
            n = emit(walk, out, block.start + block.last, ENTRY, LBR_SYSCALL, 3, 0)
            n += emit(walk, out + n, EXIT, next_block.start, LBR_IRET, 0, 3)
        else:
            n = deliver(walk, block, next_block.start, out)
    walk.event = 0
    walk.previous = word
    return n


@cython.final
cdef class BlockWalk:
    """Rebuilds the branches of one thread.

    Parameters
    ----------
    blocks : array of BLOCK_DTYPE, shape (n,), C-contiguous
        The table; number 0 is never used.
    lengths : array of u1, shape (m,), C-contiguous
        Bytes of every instruction of every block, at the block's ``lengths``.
    timed : bool
        Fill in `cycles` from the cost model.
    gates : array of u8, shape (k,), ascending; or None
        The blocks are a system's, which interrupts and exceptions enter at these addresses.

    Attributes
    ----------
    gaps : int
        Steps so far that nothing explains: no branch is reported for them.
    """

    def __cinit__(self, blocks, lengths, bint timed=False, gates=None):
        self.blocks = np.ascontiguousarray(blocks, BLOCK_DTYPE)
        self.lengths = np.ascontiguousarray(lengths, np.uint8)
        cdef const unsigned char[::1] raw = self.blocks.view(np.uint8).reshape(-1)
        cdef const unsigned char[::1] pool = self.lengths
        memset(&self.walk, 0, sizeof(block_walk))
        self.walk.blocks = <const wire_block*> &raw[0] if len(raw) else NULL
        self.walk.lengths = &pool[0] if len(pool) else NULL
        self.walk.block_count = <uint32_t> len(self.blocks)
        self.walk.length_bytes = <uint32_t> len(pool)
        self.walk.timed = timed
        cdef const uint64_t[::1] places
        if gates is not None:
            self.gates = places = np.ascontiguousarray(gates, np.uint64)
            self.walk.system, self.walk.gate_count = True, len(places)
            self.walk.gates = &places[0] if len(places) else NULL

    @property
    def gaps(self):
        return self.walk.gaps

    def limit(self, Py_ssize_t count):
        """Let only the first `count` blocks of the table exist."""
        if not 0 <= count <= len(self.blocks):
            raise ValueError(f"{count} of {len(self.blocks)} blocks")
        self.walk.block_count = <uint32_t> count

    def feed(self, words):
        """Branches from the next words of the thread's ring.

        Parameters
        ----------
        words : array of u4, shape (n,), oldest first

        Returns
        -------
        ndarray of BRANCH_DTYPE, oldest first
            With conditional branches that fell through, as NOT_TAKEN.

        Raises
        ------
        ValueError
            A number that no block has; the words before it are taken.
        """
        cdef const uint32_t[::1] data = np.ascontiguousarray(words, np.uint32)
        result = np.empty(WALK_BRANCHES * len(data), BRANCH_DTYPE)
        cdef unsigned char[::1] raw = result.view(np.uint8)
        cdef lbr_branch* out = <lbr_branch*> &raw[0] if len(raw) else NULL
        cdef Py_ssize_t i, n = 0
        cdef int got = 0
        with nogil:
            for i in range(data.shape[0]):
                got = walk_word(&self.walk, data[i], out + n)
                if got < 0:
                    break
                n += got
        if got < 0:
            raise ValueError(f"word {i}: no block has the number {data[i]}")
        return result[:n]
