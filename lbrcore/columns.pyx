"""A batch given as separate columns, gathered a block at a time."""

cimport cython
from cpython.buffer cimport PyBuffer_Release
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from lbrcore.buffers cimport acquire, unsigned

cdef enum:
    FROM, TO, CLS, CYCLES, FLAGS, CPL_FROM, CPL_TO, EVENTS


@cython.final
cdef class Columns:
    """Columns of one length; holds their buffers until it dies."""

    def __init__(self, from_, to, cls, cycles, flags, cpl_from, cpl_to, events):
        self._take(FROM, from_, "from_", b"L", 8, "uint64")
        self.count = <size_t> self.views[FROM].shape[0]
        self._take(TO, to, "to", b"L", 8, "uint64")
        self._take(CLS, cls, "cls", b"B", 1, "uint8")
        if cycles is not None:
            self._take(CYCLES, cycles, "cycles", b"I", 4, "uint32")
        if flags is not None:
            self._take(FLAGS, flags, "flags", b"B", 1, "uint8")
        for column, level, name in ((CPL_FROM, cpl_from, "cpl_from"), (CPL_TO, cpl_to, "cpl_to")):
            if hasattr(level, "__index__") and not hasattr(level, "shape"):
                self.constant[column] = <uint8_t> unsigned(level, name, 3)
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
        if column != FROM and <size_t> self.views[column].shape[0] != self.count:
            raise ValueError(f"{name}: has {self.views[column].shape[0]} items, `from_` has "
                             f"{self.count}")
        return 0

    cdef size_t gather(self, lbr_branch* block, size_t start) noexcept nogil:
        """Fill `block` from row `start`; the number of branches put there."""
        cdef size_t n = min(<size_t> BLOCK, self.count - start), i
        cdef const uint64_t* from_ = <const uint64_t*> self.views[FROM].buf + start
        cdef const uint64_t* to = <const uint64_t*> self.views[TO].buf + start
        cdef const uint8_t* cls = <const uint8_t*> self.views[CLS].buf + start
        memset(block, 0, n * sizeof(lbr_branch))
        for i in range(n):
            block[i].from_ = from_[i]
            block[i].to = to[i]
            block[i].cls = cls[i]
            block[i].cpl_from = self.constant[CPL_FROM]
            block[i].cpl_to = self.constant[CPL_TO]
        if self.held[CYCLES]:
            for i in range(n):
                block[i].cycles = (<const uint32_t*> self.views[CYCLES].buf)[start + i]
        if self.held[FLAGS]:
            for i in range(n):
                block[i].flags = (<const uint8_t*> self.views[FLAGS].buf)[start + i]
        if self.held[CPL_FROM]:
            for i in range(n):
                block[i].cpl_from = (<const uint8_t*> self.views[CPL_FROM].buf)[start + i]
        if self.held[CPL_TO]:
            for i in range(n):
                block[i].cpl_to = (<const uint8_t*> self.views[CPL_TO].buf)[start + i]
        if self.held[EVENTS]:
            for i in range(n):
                memcpy(&block[i].events, (<const uint32_t*> self.views[EVENTS].buf) + start + i, 4)
        return n
