"""The interface of `lbrcore.LbrState`, as far as every branch recorder has it."""

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import numpy as np

from lbrcore import ENTRY_DTYPE, Fault
from lbrcore.buffers cimport BRANCH_FORMAT, acquire, unsigned
from lbrcore.lbr cimport (
    CYC_CNT_MAX, INFO_CLASS_SHIFT, INFO_TYPE_SHIFT, LBR_INFO_CYC_CNT_VALID, lbr_br_type,
    lbr_branch, lbr_entry,
)

from pylbr.arch import bits
from pylbr.sister import details

cdef uint64_t MISPREDICTED = bits.INFO_MISPRED
cdef uint64_t TRANSACTION = bits.INFO_IN_TSX
cdef uint8_t LAST_CAUSE = max(details.Cause)


cdef uint64_t common_info(uint8_t cls, bint mispredicted, bint transaction, bint timed,
                          uint64_t cycles) noexcept nogil:
    cdef uint64_t info = (lbr_br_type(cls) << INFO_TYPE_SHIFT | <uint64_t> cls << INFO_CLASS_SHIFT)
    if mispredicted:
        info |= MISPREDICTED
    if transaction:
        info |= TRANSACTION
    if timed:
        info |= LBR_INFO_CYC_CNT_VALID | min(cycles, <uint64_t> CYC_CNT_MAX)
    return info


cdef class BranchFacility:
    """BranchFacility()\n--\n
    What `lbrcore.LbrState` and the recorders of other architectures have in common.

    Branches come as rows of `lbrcore.BRANCH_DTYPE` (`pylbr.sister.details` describes how to read
    them), records leave as `lbrcore.ENTRY_DTYPE`.  An instance is used by one thread at a time.
    A call that raises leaves the state as it was.
    """

    cdef void take(self, const lbr_branch* branches, size_t count) noexcept nogil:
        pass

    cdef uint32_t give(self, lbr_entry* entries) noexcept nogil:
        return 0

    cdef uint32_t give_raw(self, lbr_entry* entries) noexcept nogil:
        return 0

    cdef void forget(self) noexcept nogil:
        pass

    cdef uint32_t count(self) noexcept nogil:
        return 0

    cdef int check(self, const lbr_branch* branches, size_t count) except -1:
        cdef size_t i
        cdef uint8_t level
        for i in range(count):
            if branches[i].cls > 15:
                raise ValueError(f"branches[{i}]: class {branches[i].cls} is not a BranchClass "
                                 "(0 to 15)")
            if branches[i].flags >> 4 > LAST_CAUSE:
                raise ValueError(f"branches[{i}]: flags {branches[i].flags:#x}: no Cause has the "
                                 f"number {branches[i].flags >> 4}")
            for level in (branches[i].cpl_from, branches[i].cpl_to):
                if level > 31 or not (self.levels >> level) & 1:
                    raise ValueError(f"branches[{i}]: privilege level {level}: not one of "
                                     f"{[n for n in range(8) if self.levels >> n & 1]}")
        return 0

    def record(self, branches):
        """Record a batch: all of it, or nothing if a branch is out of range.

        Parameters
        ----------
        branches : buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first

        Raises
        ------
        TypeError
            Not a buffer, or of another dtype.
        ValueError
            Strided, not one-dimensional, or a class, cause or privilege level out of range.
        """
        cdef Py_buffer view
        acquire(branches, &view, "branches", BRANCH_FORMAT, sizeof(lbr_branch),
                "lbrcore.BRANCH_DTYPE", False)
        try:
            self.check(<const lbr_branch*> view.buf, <size_t> view.shape[0])
            with nogil:
                self.take(<const lbr_branch*> view.buf, <size_t> view.shape[0])
        finally:
            PyBuffer_Release(&view)

    def record_one(self, from_, to, cls, *, cycles=0, flags=0, cpl_from=3, cpl_to=3):
        """Record one branch; arguments as the fields of BRANCH_DTYPE."""
        cdef lbr_branch branch
        memset(&branch, 0, sizeof(branch))
        branch.from_ = unsigned(from_, "from_", <uint64_t> -1)
        branch.to = unsigned(to, "to", <uint64_t> -1)
        branch.cls = <uint8_t> unsigned(cls, "cls", 15)
        branch.cycles = <uint32_t> unsigned(cycles, "cycles", 0xFFFFFFFF)
        branch.flags = <uint8_t> unsigned(flags, "flags", 255)
        branch.cpl_from = <uint8_t> unsigned(cpl_from, "cpl_from", 7)
        branch.cpl_to = <uint8_t> unsigned(cpl_to, "cpl_to", 7)
        self.check(&branch, 1)
        self.take(&branch, 1)

    @property
    def depth(self):
        """Records that the facility holds."""
        return self.count()

    def records(self):
        """All entries as an array of ENTRY_DTYPE, shape (depth,), newest first; a copy.

        `info` has the layout of IA32_LBR_x_INFO and the class in bits 51:48.  FROM all ones came
        from a privilege level that is filtered out, TO 0 went to one.  What is not valid is 0.
        """
        cdef lbr_entry entries[MOST_RECORDS]
        cdef uint32_t n = self.give(entries)
        return np.frombuffer(
            bytearray(PyBytes_FromStringAndSize(<char*> entries, n * sizeof(lbr_entry))),
            ENTRY_DTYPE)

    def registers(self):
        """The entries as the facility's own registers show them, newest first; a copy."""
        cdef lbr_entry entries[MOST_RECORDS]
        cdef uint32_t n = self.give_raw(entries)
        return np.frombuffer(
            bytearray(PyBytes_FromStringAndSize(<char*> entries, n * sizeof(lbr_entry))),
            ENTRY_DTYPE)

    def read_entry(self, i):
        """Entry `i` of `records`, 0 being the newest; `Fault` for i >= depth."""
        cdef lbr_entry entries[MOST_RECORDS]
        cdef uint64_t at = unsigned(i, "i", 0xFFFFFFFF)
        if at >= self.give(entries):
            raise Fault(f"i: entry {i} does not exist at depth {self.count()}")
        return entries[at].from_, entries[at].to, entries[at].info

    def clear(self):
        """Zero all records; control stays."""
        self.forget()
