"""The numbers of edges from those of blocks, for those who know more of what ran than its blocks."""

from libc.stdint cimport uint32_t, uint64_t

from lbrcore.lbr cimport lbr_branch
from pylbr.record._blocks cimport block_walk
from pylbr.trace._edges cimport Edges

cdef enum:
    ODD_ROWS = 1024  # branches with other values than their edge that one call reports

#: A block and the one after it as one number; 0 is none, as there is no block 0.
ctypedef uint64_t pair


ctypedef struct known:
    pair blocks[2]
    uint32_t edge[2]


cdef class Numbered:
    cdef Edges edges
    cdef object _known, _odd
    cdef known* steps
    cdef lbr_branch* odd
    cdef Py_ssize_t room

    cdef _make_room(self)
    cdef _make_rooms(self)
    cdef bint _roomy(self) noexcept nogil
    cdef int _word(self, block_walk* walk, uint32_t word, uint32_t* out, uint32_t* last,
                   long long* places, Py_ssize_t* odd, Py_ssize_t count) noexcept nogil
    cdef int _other(self, block_walk* walk, uint32_t word, pair blocks, known* step,
                    uint32_t* out, uint32_t* last, long long* places, Py_ssize_t* odd,
                    Py_ssize_t count) noexcept nogil
