from libc.stdint cimport uint64_t

from pylbr.x86.blocks cimport BlockRecorder
from pylbr.x86.tracker cimport block_tracker

ctypedef int (*register_write)(void* engine, int which, const void* value) noexcept nogil

ctypedef struct stamp_state:
    block_tracker* tracker
    register_write write
    int rip, rax, rdx
    uint64_t idle
    uint64_t offset


cdef class TimeStamp:
    cdef BlockRecorder recorder
    cdef stamp_state state
