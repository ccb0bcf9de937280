"""The numbers of edges, for those who make branches themselves."""

from libc.stdint cimport uint32_t, uint64_t


ctypedef struct words:
    uint64_t from_
    uint64_t to
    uint64_t counts  # cycles, instructions
    uint64_t rest    # class, flags, privilege levels, events


cdef class Edges:
    cdef readonly Py_ssize_t edges, nodes
    cdef readonly uint64_t differing
    cdef object _rows, _source, _target, _seen, _after, _addresses, _edge_slots, _node_slots
    cdef words* rows
    cdef uint32_t* source
    cdef uint32_t* target
    cdef uint32_t* seen     # uses
    cdef uint32_t* after    # two guesses of what follows an edge, by 1 + its number
    cdef uint64_t* addresses
    cdef uint32_t* edge_slots
    cdef uint32_t* node_slots
    cdef Py_ssize_t edge_room, node_room
    cdef int edge_shift, node_shift
    cdef uint64_t counts_mask, rest_mask

    cdef bint has_room(self) noexcept nogil
    cdef make_room(self)
    cdef uint32_t take(self, const words* row, uint32_t last, bint* differs) noexcept nogil
    cdef object _longer(self, object array, Py_ssize_t count, value=*)
    cdef _grow(self)
    cdef _index(self)
    cdef uint64_t _node_slot(self, uint64_t address) noexcept nogil
    cdef uint64_t _edge_slot(self, uint32_t node, const words* row) noexcept nogil
    cdef uint32_t _number(self, uint32_t node, const words* row) noexcept nogil
    cdef bint _is(self, const words* edge, const words* row) noexcept nogil
