"""Arguments from Python: buffers and integers, checked once, with the argument's name."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint64_t

# Fill `view` with a one-dimensional C-contiguous buffer of items of `itemsize` bytes and buffer
# format `format` (as NumPy spells it on this platform).  Release it with PyBuffer_Release.
cdef int acquire(
    object source, Py_buffer* view, str name, const char* format, Py_ssize_t itemsize,
    str dtype, bint writable) except -1

# The bytes of any C-contiguous buffer.
cdef int acquire_bytes(object source, Py_buffer* view, str name, bint writable) except -1

# An integer of 0..`highest`; a float is refused, not cut.
cdef uint64_t unsigned(object value, str name, uint64_t highest) except? 0xFFFFFFFFFFFFFFFF

# Just `count` values, of any iterable.
cdef tuple several(object source, str name, int count)

# A truth value: True, False, 0 or 1.
cdef bint truth(object value, str name) except? True

cdef const char* BRANCH_FORMAT
cdef const char* ENTRY_FORMAT
