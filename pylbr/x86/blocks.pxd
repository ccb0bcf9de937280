"""Executed blocks in, branches out; the hook that a translating emulator calls.

    from pylbr.x86.blocks cimport BlockRecorder, blocks_enter

A block is what the emulator translated as one: straight code whose last instruction may be a
branch.  Thread rule: as the `lbr_state` that it feeds.
"""

from libc.stdint cimport uint32_t, uint64_t

from lbrcore.lbr cimport LbrState
from pylbr.x86.tracker cimport block_tracker

cdef void blocks_enter(
    void* engine, uint64_t address, uint32_t size, void* tracker) noexcept nogil
cdef void blocks_translated(
    void* engine, void* block, void* previous, void* tracker) noexcept nogil

# Instructions retired before the one at `address` in the block that is being executed.
cdef uint64_t blocks_position(block_tracker* t, uint64_t address) noexcept nogil


cdef class BlockRecorder:
    cdef block_tracker tracker
    cdef readonly LbrState state
    cdef object _classify, _attention, _drain, _report, _error
