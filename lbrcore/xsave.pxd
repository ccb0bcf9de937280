"""XSAVE component 15 for Cython; no allocation, no Python object, no GIL."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from lbrcore.lbr cimport lbr_state, lbr_xsave_layout

cdef enum:
    LBR_COMPONENT = 15
    LBR_COMPONENT_SIZE = 808

cdef bint lbr_xinuse(const lbr_state* state) noexcept nogil
cdef int lbr_pack(const lbr_state* state, void* component, size_t size) noexcept nogil
cdef int lbr_unpack(lbr_state* state, const void* component, size_t size) noexcept nogil
cdef int lbr_xsaves(
    const lbr_state* state, void* area, size_t size, const lbr_xsave_layout* layout,
    uint64_t rfbm, uint64_t xinuse) noexcept nogil
cdef int lbr_xrstors(
    lbr_state* state, const void* area, size_t size, const lbr_xsave_layout* layout,
    uint64_t rfbm, uint64_t supported) noexcept nogil
