"""Breadth-first search of all reachable states."""

from libc.stdint cimport uint8_t, uint32_t

from pylbr.arbitration.microsteps cimport Policy
from pylbr.verify.world cimport PROPERTIES, Action, Options, World


cdef class Model:
    cdef readonly Policy policy
    cdef Options options
    cdef World initial


cdef class Explorer:
    cdef readonly Model model
    cdef bint canonical
    cdef World world
    cdef size_t width, capacity, slots, next, level_end
    cdef readonly size_t states, transitions, depth
    cdef readonly bint complete
    cdef readonly unsigned int failed
    cdef uint32_t prune
    cdef uint32_t bad_state[PROPERTIES]
    cdef Action bad_action[PROPERTIES]
    cdef uint8_t* bytes_
    cdef uint32_t* table
    cdef uint32_t* parent
    cdef Action* action
    cdef int _grow(self, size_t capacity) noexcept nogil
    cdef int _rehash(self) noexcept nogil
    cdef int _insert(self, const uint8_t* state, uint32_t parent, Action action) noexcept nogil
    cdef void _note(self, uint32_t number, Action action, uint32_t failed) noexcept nogil
    cdef int _expand(self, uint32_t number) noexcept nogil
