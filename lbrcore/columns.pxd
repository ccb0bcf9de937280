"""A batch given as separate columns, gathered a block at a time."""

cimport cython
from cpython.buffer cimport Py_buffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from lbrcore.lbr cimport lbr_branch

cdef enum:
    BLOCK = 256  # 8 KiB of branches: stays in the first-level cache
    COLUMNS = 8


@cython.final
cdef class Columns:
    cdef Py_buffer views[COLUMNS]
    cdef uint8_t held[COLUMNS]
    cdef uint64_t constant[COLUMNS]       # the one value of a column that is left out
    cdef const uint8_t* items[COLUMNS]    # first item
    cdef Py_ssize_t strides[COLUMNS]      # 0 for a constant
    cdef readonly size_t count
    cdef int _take(self, int column, object source, str name, const char* format,
                   Py_ssize_t itemsize, str dtype) except -1
    cdef size_t gather(self, lbr_branch* block, size_t start) noexcept nogil
