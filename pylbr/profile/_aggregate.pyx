"""Counting of edges and of straight runs; the twin is in `pylbr.profile.reference`."""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
cimport cython

import numpy as np

from pylbr.profile.dtypes import PAIR_DTYPE


cdef struct row:
    uint64_t first
    uint64_t last
    uint64_t origin      # of a run: FROM of the branch to its first address; of an edge: 0
    uint64_t count       # 0: free
    uint64_t mispredicted
    uint64_t cycles
    uint64_t timed       # of `count`, those with a cycle count
    int64_t pid

cdef struct triple:
    uint64_t source
    uint64_t target
    uint64_t flags

cdef inline uint64_t cycles_of(const triple *entry) noexcept nogil:
    return (entry.flags >> 4) & 0xFFFF

cdef inline bint is_not_taken(const triple *entry) noexcept nogil:
    return (entry.flags >> 33) & 1

cdef inline bint is_empty(const triple *entry) noexcept nogil:
    return (entry.source | entry.target) == 0


cdef inline uint64_t mixed(uint64_t first, uint64_t last, uint64_t origin,
                           int64_t pid) noexcept nogil:
    cdef uint64_t h = first * <uint64_t>0x9E3779B97F4A7C15
    h = (h ^ (h >> 29) ^ last) * <uint64_t>0xBF58476D1CE4E5B9
    h = (h ^ (h >> 32) ^ origin ^ <uint64_t>pid << 48) * <uint64_t>0x94D049BB133111EB
    return h ^ (h >> 31)


@cython.final
cdef class PairTable:
    """Counts by (pid, first address, last address, origin); an open hash table.

    Used by one thread at a time.  Entries 0 -> 0 are no branches and are not counted; nor are
    those with the flag of a branch that was not taken.

    Attributes
    ----------
    flags : int
        All flags of counted entries, combined by OR: those that were ever recorded.
    not_taken : int
        Entries that `add_edges` left out because they were not taken.
    """

    cdef row *rows
    cdef Py_ssize_t mask, used
    cdef readonly uint64_t flags, not_taken

    def __cinit__(self):
        self.mask = (1 << 12) - 1
        self.rows = <row *>calloc(self.mask + 1, sizeof(row))
        if self.rows == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.rows)

    def __len__(self):
        return self.used

    cdef inline row *slot(self, uint64_t first, uint64_t last, uint64_t origin,
                          int64_t pid) noexcept nogil:
        cdef Py_ssize_t at = <Py_ssize_t>(mixed(first, last, origin, pid) & <uint64_t>self.mask)
        cdef row *r
        while True:
            r = self.rows + at
            if r.count == 0 or (r.first == first and r.last == last and r.origin == origin
                                and r.pid == pid):
                return r
            at = (at + 1) & self.mask

    cdef int grow(self) except -1 nogil:
        cdef row *old = self.rows
        cdef Py_ssize_t i, length = self.mask + 1
        cdef row *larger = <row *>calloc(2 * length, sizeof(row))
        if larger == NULL:
            raise MemoryError
        self.rows, self.mask = larger, 2 * length - 1
        for i in range(length):
            if old[i].count:
                self.slot(old[i].first, old[i].last, old[i].origin, old[i].pid)[0] = old[i]
        free(old)
        return 0

    cdef inline int count(self, uint64_t first, uint64_t last, uint64_t origin, int64_t pid,
                          uint64_t flags, uint64_t cycles) except -1 nogil:
        cdef row *r = self.slot(first, last, origin, pid)
        if r.count == 0:
            if 2 * self.used > self.mask:
                self.grow()
                r = self.slot(first, last, origin, pid)
            r.first, r.last, r.origin, r.pid = first, last, origin, pid
            self.used += 1
        r.count += 1
        # A branch that is marked as both counts as predicted, as perf prints it.
        r.mispredicted += flags & 3 == 1
        r.cycles += cycles
        r.timed += cycles != 0
        return 0

    def add_edges(self, samples):
        """Count (FROM, TO) of every entry.

        Returns
        -------
        int
            Entries counted.
        """
        cdef const int64_t[::1] offsets = samples.offsets
        cdef const int32_t[::1] pid = samples.pid
        cdef const uint64_t[::1] words = samples.entries.view("u8")
        cdef const triple *entry
        cdef Py_ssize_t i, j, counted = 0
        if words.shape[0] == 0:
            return 0
        with nogil:
            entry = <const triple *>&words[0]
            for i in range(pid.shape[0]):
                for j in range(offsets[i], offsets[i + 1]):
                    if is_empty(entry + j):
                        continue
                    if is_not_taken(entry + j):
                        self.not_taken += 1
                        continue
                    self.flags |= entry[j].flags
                    counted += 1
                    self.count(entry[j].source, entry[j].target, 0, pid[i], entry[j].flags,
                               cycles_of(entry + j))
        return counted

    def add_runs(self, samples):
        """Count (TO of a branch, FROM of the next one in time): code that ran straight.

        Runs are distinguished by the FROM of the branch that they begin with, too.  A branch that
        was not taken lies within a run, and its cycles are the run's; an empty entry ends one.

        Returns
        -------
        int
            Pairs that are no run, as FROM lies before TO; they are not counted.
        """
        cdef const int64_t[::1] offsets = samples.offsets
        cdef const int32_t[::1] pid = samples.pid
        cdef const uint64_t[::1] words = samples.entries.view("u8")
        cdef const triple *entry
        cdef const triple *newer
        cdef Py_ssize_t i, j, broken = 0
        cdef uint64_t cycles
        if words.shape[0] == 0:
            return 0
        with nogil:
            entry = <const triple *>&words[0]
            for i in range(pid.shape[0]):
                newer, cycles = NULL, 0
                for j in range(offsets[i], offsets[i + 1]):
                    if is_empty(entry + j):
                        newer = NULL
                        continue
                    if is_not_taken(entry + j):
                        cycles += cycles_of(entry + j)
                        continue
                    if newer != NULL:
                        if newer.source < entry[j].target:
                            broken += 1
                        else:
                            self.count(entry[j].target, newer.source, entry[j].source, pid[i],
                                       newer.flags, cycles)
                    newer, cycles = entry + j, cycles_of(entry + j)
        return broken

    def add_ips(self, samples):
        """Count the address of every sample, as (address, 0)."""
        cdef const uint64_t[::1] ip = samples.ip
        cdef const int32_t[::1] pid = samples.pid
        cdef Py_ssize_t i
        with nogil:
            for i in range(pid.shape[0]):
                self.count(ip[i], 0, 0, pid[i], 0, 0)

    def to_array(self):
        """Rows as `PAIR_DTYPE`, ordered by pid, first and last address, origin."""
        result = np.empty(self.used, PAIR_DTYPE)
        cdef uint64_t[::1] out
        cdef Py_ssize_t i, k = 0
        if self.used:
            out = result.view("u8")
            for i in range(self.mask + 1):
                if self.rows[i].count:
                    (<row *>&out[0])[k] = self.rows[i]
                    k += 1
        order = np.lexsort(tuple(result[name] for name in ("origin", "last", "first", "pid")))
        return result[order]
