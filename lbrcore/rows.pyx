"""Branches where they lie: an array of BRANCH_DTYPE, or columns, or a mixture."""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.string cimport memcpy, memset, strcmp

from lbrcore.buffers cimport BRANCH_FORMAT, acquire, unsigned

from collections.abc import Mapping

import numpy as np

from lbrcore.dtypes import BRANCH_DTYPE

# By field: name, bytes of one value, bytes of one item of the buffer, its format, value of
# a field that is not given.
cdef tuple FIELD_TABLE = (
    ("from", 8, 8, b"L", None), ("to", 8, 8, b"L", None), ("cycles", 4, 4, b"I", 0),
    ("instructions", 4, 4, b"I", 1), ("class", 1, 1, b"B", None), ("flags", 1, 1, b"B", 0),
    ("cpl_from", 1, 1, b"B", 3), ("cpl_to", 1, 1, b"B", 3), ("events", 4, 1, b"B", 0),
)
cdef tuple OFFSETS = (0, 8, 16, 20, 24, 25, 26, 27, 28)  # in lbr_branch
cdef enum:
    ADDRESS_TOP = 7  # highest byte of a little-endian address


cdef void lbr_gather(
    const lbr_rows* rows, size_t first, size_t count, lbr_branch* block
) noexcept nogil:
    # A loop for each field keeps its pointer and stride in registers.
    cdef uint32_t events
    cdef size_t i
    for i in range(count):
        block[i].from_ = lbr_address(rows, FIELD_FROM, first + i)
    for i in range(count):
        block[i].to = lbr_address(rows, FIELD_TO, first + i)
    for i in range(count):
        block[i].cycles = lbr_u32(rows, FIELD_CYCLES, first + i)
    for i in range(count):
        block[i].instructions = lbr_u32(rows, FIELD_INSTRUCTIONS, first + i)
    for i in range(count):
        block[i].cls = lbr_byte(rows, FIELD_CLASS, first + i)
    for i in range(count):
        block[i].flags = lbr_byte(rows, FIELD_FLAGS, first + i)
    for i in range(count):
        block[i].cpl_from = lbr_byte(rows, FIELD_CPL_FROM, first + i)
    for i in range(count):
        block[i].cpl_to = lbr_byte(rows, FIELD_CPL_TO, first + i)
    for i in range(count):
        events = lbr_u32(rows, FIELD_EVENTS, first + i)
        memcpy(&block[i].events, &events, 4)


cdef void _by_address(lbr_rows* rows, int cpl, int address) noexcept nogil:
    """Let a CPL that goes by the address look at the address' highest byte."""
    if rows.column[cpl].by_address:
        rows.column[cpl].data = rows.column[address].data + ADDRESS_TOP
        rows.column[cpl].stride = rows.column[address].stride


@cython.final
cdef class Rows:
    """Rows(source)\n--\n
    Branches, oldest first.  Holds the buffers it was given; copies nothing.

    Parameters
    ----------
    source : ndarray of BRANCH_DTYPE, or mapping of str to ndarray or int
        Columns are named as the fields of `BRANCH_DTYPE` and have its types; `from`, `to` and
        `class` must be there.  An integer stands for a column of one value.  Not given:
        `cycles`, `flags`, `events` 0, `instructions` 1, CPLs 3.  A CPL given as
        ``"address"`` is 0 for addresses in the upper half and 3 for the lower.

    Raises
    ------
    TypeError, ValueError
        A column of another type, shape or length.
    """

    def __cinit__(self, source not None):
        cdef int field
        memset(self.held, 0, sizeof(self.held))
        if isinstance(source, Mapping):
            for field in range(FIELDS):
                self._take(field, source.get(FIELD_TABLE[field][0]))
            _by_address(&self.rows, FIELD_CPL_FROM, FIELD_FROM)
            _by_address(&self.rows, FIELD_CPL_TO, FIELD_TO)
        else:
            self._take_array(source)

    def __dealloc__(self):
        cdef int field
        for field in range(FIELDS):
            if self.held[field]:
                PyBuffer_Release(&self.views[field])

    def __len__(self):
        return self.rows.count

    def gather(self, size_t first, size_t last):
        """Rows `first` to `last` as BRANCH_DTYPE: a copy, out of range or not.

        Raises
        ------
        ValueError
            There are no such rows.
        """
        if not first <= last <= self.rows.count:
            raise ValueError(f"first, last: {first}, {last} of {self.rows.count} rows")
        branches = np.empty(last - first, BRANCH_DTYPE)
        cdef lbr_branch* block = <lbr_branch*> <size_t> branches.ctypes.data
        with nogil:
            lbr_gather(&self.rows, first, last - first, block)
        return branches

    cdef int _take_array(self, object branches) except -1:
        cdef int field
        acquire(branches, &self.views[0], "branches", BRANCH_FORMAT, sizeof(lbr_branch),
                "lbrcore.BRANCH_DTYPE", False)
        self.held[0] = 1
        self.rows.count = <size_t> self.views[0].shape[0]
        self.rows.array = <const lbr_branch*> self.views[0].buf
        for field in range(FIELDS):
            self.rows.column[field].data = (
                <const char*> self.views[0].buf + <size_t> OFFSETS[field])
            self.rows.column[field].stride = sizeof(lbr_branch)
            self.rows.column[field].by_address = 0
        return 0

    cdef int _take(self, int field, object source) except -1:
        cdef lbr_column* column = &self.rows.column[field]
        cdef Py_buffer* view = &self.views[field]
        cdef int dimensions = 2 if field == FIELD_EVENTS else 1
        name, size, itemsize, form, default = FIELD_TABLE[field]
        column.by_address = 0
        if source is None:
            if default is None:
                raise ValueError(f"{name}: this column must be given")
            source = default
        if field in (FIELD_CPL_FROM, FIELD_CPL_TO) and isinstance(source, str):
            if source != "address":
                raise ValueError(f"{name}: a column, a number or 'address', not {source!r}")
            column.by_address = 1
            return 0
        if hasattr(source, "__index__") and not hasattr(source, "shape"):
            if default is None:
                raise ValueError(f"{name}: must be a column, not one number")
            self.constant[field] = unsigned(source, name, (<uint64_t> 1 << 8 * <int> size) - 1)
            column.data = <const char*> &self.constant[field]
            column.stride = 0
            return 0
        PyObject_GetBuffer(source, view, PyBUF_FORMAT | PyBUF_STRIDES)
        self.held[field] = 1
        if (view.format == NULL or strcmp(view.format, form) or view.ndim != dimensions
                or view.itemsize != itemsize):
            raise TypeError(f"{name}: must be of the type and shape of that field of BRANCH_DTYPE")
        if view.strides[0] < 0 or (
                dimensions == 2 and (view.shape[1] != 4 or view.strides[1] != 1)):
            raise ValueError(f"{name}: must run forwards, without gaps within a row")
        if field == FIELD_FROM:
            self.rows.count = <size_t> view.shape[0]
        elif <size_t> view.shape[0] != self.rows.count:
            raise ValueError(f"{name}: has {view.shape[0]} rows, `from` has {self.rows.count}")
        column.data = <const char*> view.buf
        column.stride = <size_t> view.strides[0]
        return 0


cdef Rows rows_of(object source):
    return source if isinstance(source, Rows) else Rows(source)
