"""A batch given as separate columns, gathered a block at a time."""

cimport cython
from cpython.buffer cimport PyBuffer_Release
from libc.string cimport memcpy

from lbrcore.buffers cimport acquire, unsigned

cdef enum:
    FROM, TO, CLS, CYCLES, FLAGS, CPL_FROM, CPL_TO, EVENTS


@cython.final
cdef class Columns:
    """Columns(from_, to, cls, cycles, flags, cpl_from, cpl_to, events)\n--\n
    Columns of one length; holds their buffers until it dies.

    Attributes
    ----------
    count : int
        Number of branches.
    """

    def __init__(self, from_, to, cls, cycles, flags, cpl_from, cpl_to, events):
        cdef int column
        for column in range(COLUMNS):
            self.items[column] = <const uint8_t*> &self.constant[column]
        self._take(FROM, from_, "from_", b"L", 8, "uint64")
        self._take(TO, to, "to", b"L", 8, "uint64")
        self._take(CLS, cls, "cls", b"B", 1, "uint8")
        if cycles is not None:
            self._take(CYCLES, cycles, "cycles", b"I", 4, "uint32")
        if flags is not None:
            self._take(FLAGS, flags, "flags", b"B", 1, "uint8")
        for column, level, name in ((CPL_FROM, cpl_from, "cpl_from"), (CPL_TO, cpl_to, "cpl_to")):
            if hasattr(level, "__index__") and not getattr(level, "shape", ()):
                self.constant[column] = unsigned(level, name, 3)
            else:
                self._take(column, level, name, b"B", 1, "uint8")
        if events is not None:
            self._take(EVENTS, events, "events", b"I", 4, "uint32")

    def __dealloc__(self):
        cdef int column
        for column in range(COLUMNS):
            if self.held[column]:
                PyBuffer_Release(&self.views[column])

    cdef int _take(self, int column, object source, str name, const char* format,
                   Py_ssize_t itemsize, str dtype) except -1:
        acquire(source, &self.views[column], name, format, itemsize, dtype, False)
        self.held[column] = 1
        if column == FROM:
            self.count = <size_t> self.views[FROM].shape[0]
        elif <size_t> self.views[column].shape[0] != self.count:
            raise ValueError(f"{name}: has {self.views[column].shape[0]} items, `from_` has "
                             f"{self.count}")
        self.items[column] = <const uint8_t*> self.views[column].buf
        self.strides[column] = itemsize
        return 0

    cdef size_t gather(self, lbr_branch* block, size_t start) noexcept nogil:
        """Fill `block` from row `start`; the number of branches put there."""
        cdef size_t n = min(<size_t> BLOCK, self.count - start), i
        cdef const uint8_t* at[COLUMNS]
        cdef int column
        for column in range(COLUMNS):
            at[column] = self.items[column] + <Py_ssize_t> start * self.strides[column]
        for i in range(n):
            block[i].from_ = (<const uint64_t*> at[FROM])[i]
            block[i].to = (<const uint64_t*> at[TO])[i]
            block[i].cls = at[CLS][i]
            memcpy(&block[i].cycles, at[CYCLES] + <Py_ssize_t> i * self.strides[CYCLES], 4)
            block[i].instructions = 0
            block[i].flags = (at[FLAGS] + <Py_ssize_t> i * self.strides[FLAGS])[0]
            block[i].cpl_from = (at[CPL_FROM] + <Py_ssize_t> i * self.strides[CPL_FROM])[0]
            block[i].cpl_to = (at[CPL_TO] + <Py_ssize_t> i * self.strides[CPL_TO])[0]
            memcpy(&block[i].events, at[EVENTS] + <Py_ssize_t> i * self.strides[EVENTS], 4)
        return n
