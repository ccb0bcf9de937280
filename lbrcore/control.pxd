from libc.stdint cimport uint32_t, uint64_t

from lbrcore.lbr cimport lbr_state

cdef void lbr_control_changed(lbr_state* state) noexcept nogil
cdef int lbr_write_ctl(lbr_state* state, uint64_t value) noexcept nogil
cdef int lbr_write_depth(lbr_state* state, uint64_t value) noexcept nogil
cdef void lbr_set_enable(lbr_state* state, int enable) noexcept nogil
cdef void lbr_set_frozen(lbr_state* state, int frozen) noexcept nogil
cdef void lbr_set_event_mask(lbr_state* state, int mask) noexcept nogil
cdef int lbr_write_tos(lbr_state* state, uint32_t tos) noexcept nogil
