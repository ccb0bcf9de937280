"""The walk from block numbers to branches, for the modules that feed it without Python.

Thread rule: a `block_walk` is used by one thread at a time.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_branch

cdef extern from "wire.h" nogil:
    enum:
        WIRE_MAGIC, WIRE_VERSION, WIRE_PAYLOAD, WIRE_PAYLOAD_BITS, WIRE_EVENT, WIRE_NO_BRANCH
        WIRE_WINDOW_WORDS
        WIRE_ASYNCHRONOUS, WIRE_SYNCHRONOUS, WIRE_SIGRETURN
        WIRE_SAMPLED, WIRE_FULL
        WIRE_FREE, WIRE_CLAIMED, WIRE_LIVE, WIRE_DONE
        WIRE_PAD, WIRE_SAMPLE

    ctypedef struct wire_block:
        uint64_t start
        uint64_t target
        uint32_t lengths
        uint16_t size
        uint16_t last
        uint16_t instructions
        uint16_t cost
        uint8_t cls

    ctypedef struct wire_header:
        uint32_t magic, version
        uint32_t mode
        uint32_t depth
        uint32_t slots, blocks, length_bytes, ring_words, chunk_words, message_bytes, halves
        uint64_t slots_at, blocks_at, lengths_at, rings_at, messages_at, size
        uint32_t stopped
        uint32_t next_block
        uint32_t next_length
        uint32_t slots_used
        uint64_t lost_threads

    ctypedef struct wire_slot:
        uint32_t state
        uint32_t pid, tid, parent
        uint64_t started, written, read, chunks_written, chunks_read

    ctypedef struct wire_message:
        uint32_t size, type
        uint64_t time
        uint32_t bytes, cpu


# One word makes at most a branch, the entry into the kernel and the way out of it.
cdef enum:
    WALK_BRANCHES = 3
    WALK_UNKNOWN = -1  # a number that no block has

# One thread of the recorded program.
ctypedef struct block_walk:
    const wire_block* blocks
    const uint8_t* lengths
    uint32_t block_count
    uint32_t length_bytes
    bint timed             # cycles of the cost model, else 0
    uint32_t previous      # number of the newest block; 0 at a start
    uint32_t instructions  # retired since the last branch
    uint64_t cycles
    uint64_t payload
    uint32_t payload_bits
    uint32_t event         # between the previous block and the next
    uint64_t address       # of the event
    uint64_t gaps          # steps that no branch explains
    bint system            # the kernel's code is among the blocks: it has the upper half
    const uint64_t* gates  # of a system: where interrupts and exceptions enter, ascending
    Py_ssize_t gate_count


cdef int walk_word(block_walk* walk, uint32_t word, lbr_branch* out) noexcept nogil


cdef class BlockWalk:
    cdef block_walk walk
    cdef object blocks, lengths, gates
