"""Edge numbers of a .lbrt file from the ways out of traces that ran (full.h).

A way after another is always the same edges: these are worked out once, block by block
(`Numbered`), and remembered.  The twin is `_expand.expand` before `Numbered.number`.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from pylbr.record._blocks cimport WALK_BRANCHES, WIRE_PAYLOAD, BlockWalk, block_walk
from pylbr.record._numbered cimport ODD_ROWS, Numbered
from pylbr.trace._edges cimport Edges

cdef enum:
    BLOCKS_MAX = 64      # of a way; a trace has fewer
    PLACE_BITS = 15
    HERE = 10            # edges of a step that fill its line of the cache
    POOL = 1 << 18       # edges of all longer ones

#: Branches that one word makes at most.
BRANCHES_PER_WAY = BLOCKS_MAX * WALK_BRANCHES


# From one way to the end of the next.
ctypedef struct step:
    uint64_t ways        # the one before, and this; 0: none, as there is no way 0
    uint32_t count       # edges
    uint32_t uses        # that the edges do not count yet
    uint32_t block       # the last one
    uint32_t pooled      # first of its edges in the pool, if there are more than HERE
    uint32_t edges[10]   # HERE


@cython.final
cdef class NumberedWays:
    """The steps of one trace, by the ways.

    Parameters
    ----------
    edges : Edges
    """

    cdef Edges edges
    cdef Numbered blocks
    cdef object _steps, _pool
    cdef BlockWalk walked
    cdef step* steps
    cdef uint32_t* pool
    cdef uint32_t pooled
    cdef uint32_t before     # the last way, if all there is to know after it is its last block
    cdef uint32_t block      # where the walk stood then
    cdef uint32_t done       # blocks of the next word that have been taken

    def __cinit__(self, Edges edges):
        self.edges, self.blocks = edges, Numbered(edges)
        self._pool = np.zeros(POOL, np.uint32)
        self.pool = <uint32_t*> <size_t> self._pool.ctypes.data
        # No step in two lines of the cache.
        self._steps = np.zeros((sizeof(step) << PLACE_BITS) + 63, np.uint8)
        self.steps = <step*> ((<size_t> self._steps.ctypes.data + 63) // 64 * 64)

    def forget(self):
        """Edges have other numbers from now on."""
        self.blocks.forget()
        self._forget_steps()

    cdef void _forget_steps(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(1 << PLACE_BITS):
            self.steps[i].ways = 0
        self.pooled = self.before = 0

    def count_uses(self):
        """Let the edges count what they do not count yet."""
        with nogil:
            self._count_uses()

    cdef void _count_uses(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(1 << PLACE_BITS):
            if self.steps[i].ways:
                self._count(&self.steps[i])

    cdef void _count(self, step* s) noexcept nogil:
        cdef const uint32_t* edges = self._edges_of(s)
        cdef uint32_t* seen = self.edges.seen
        cdef uint32_t k
        for k in range(s.count):
            seen[edges[k]] += s.uses
        s.uses = 0

    cdef inline const uint32_t* _edges_of(self, step* s) noexcept nogil:
        return &s.edges[0] if s.count <= HERE else &self.pool[s.pooled]

    def number(self, BlockWalk blocks, const uint32_t[::1] ran, const uint32_t[:, ::1] ways,
               Py_ssize_t first, uint32_t[::1] out, uint32_t last):
        """Number the branches of one thread; as `Numbered.number`, but for words and ways.

        Parameters
        ----------
        blocks, first, out, last
            As there.
        ran : (n,) array of uint32
            Words of its ring.
        ways : (m, 2) array of uint32
            First block and number of blocks of each way; the program may write to it at any time.

        Returns
        -------
        taken, count, last, where, branches
            As there.
        """
        cdef block_walk* walk = &blocks.walk
        cdef Py_ssize_t at = first, n = ran.shape[0], count = 0, room = out.shape[0], odd = 0
        cdef int got = 0
        where = np.empty(ODD_ROWS + WALK_BRANCHES, np.int64)
        cdef long long[::1] places = where
        if blocks is not self.walked or walk.previous != self.block:
            self.walked, self.before, self.done = blocks, 0, 0
        if not self._is_plain(walk, last):
            self.before = 0
        while at < n and count + WALK_BRANCHES <= room and odd < ODD_ROWS:
            self.blocks._make_rooms()
            with nogil:
                while at < n:
                    at += self._known(walk, &ran[at], n - at, &out[0], room, &count, &last)
                    if at == n:
                        break
                    got = self._word(walk, ran[at], ways, &out[0], room, &count, &last,
                                     &places[0], &odd)
                    if got <= 0:
                        break
                    at += 1
            if got < 0:
                break
        self.block = walk.previous
        return at - first, count, last, where[:odd], self.blocks._odd[:odd].copy()

    cdef Py_ssize_t _known(self, block_walk* walk, const uint32_t* ran, Py_ssize_t n,
                           uint32_t* out, Py_ssize_t room, Py_ssize_t* count,
                           uint32_t* last) noexcept nogil:
        """Take ways that are known after those before them; how many."""
        cdef uint32_t before = self.before, word
        cdef Py_ssize_t at = 0, made = count[0]
        cdef step* newest = NULL
        cdef step* s
        if self.done:
            return 0
        while at < n:
            word = ran[at]
            s = self._place(before, word)
            # Near the end of `out`, blocks show where to stop.
            if s.ways != (<uint64_t> before << 32 | word) or not before or (
                    room - made < max(<Py_ssize_t> s.count, <Py_ssize_t> HERE) + WALK_BRANCHES):
                break
            if s.count <= HERE:
                memcpy(&out[made], &s.edges[0], 4 * 4)
                if s.count > 4:
                    memcpy(&out[made + 4], &s.edges[4], 4 * (HERE - 4))
            else:
                memcpy(&out[made], &self.pool[s.pooled], 4 * s.count)
            made += s.count
            s.uses += 1
            newest, before = s, word
            at += 1
        if at:
            walk.previous, self.before = newest.block, before
            count[0], last[0] = made, out[made - 1] + 1
        return at

    cdef inline step* _place(self, uint32_t before, uint32_t word) noexcept nogil:
        cdef uint64_t key = (<uint64_t> before << 32 | word) * <uint64_t> 0x9E3779B97F4A7C15u
        return &self.steps[(key ^ key << 29) >> (64 - PLACE_BITS)]

    cdef int _word(self, block_walk* walk, uint32_t word, const uint32_t[:, ::1] ways,
                   uint32_t* out, Py_ssize_t room, Py_ssize_t* count, uint32_t* last,
                   long long* places, Py_ssize_t* odd) noexcept nogil:
        """Take one word, block by block.  1: done; 0: something has to be made room for first;
        negative: a number that no way or block has."""
        cdef Py_ssize_t begin = count[0], odd_before = odd[0]
        cdef uint64_t gaps = walk.gaps
        cdef uint32_t first = word, blocks = 1, before = 0 if self.done else self.before
        cdef bint plain
        cdef int got
        self.before = 0
        if word < <uint32_t> WIRE_PAYLOAD:
            blocks = BLOCKS_MAX + 1
            if word < ways.shape[0]:
                first, blocks = ways[word, 0], ways[word, 1]
            if blocks > BLOCKS_MAX:
                return -1
        while self.done < blocks:
            if count[0] + WALK_BRANCHES > room or odd[0] >= ODD_ROWS or not self.blocks._roomy():
                return 0
            got = self.blocks._word(walk, first + self.done, &out[count[0]], last,
                                    &places[odd[0]], odd, count[0])
            if got < 0:
                return got
            count[0] += got
            self.done += 1
        self.done = 0
        if word < <uint32_t> WIRE_PAYLOAD:
            plain = odd[0] == odd_before and walk.gaps == gaps
            self._learn(walk, before, word, &out[begin], count[0] - begin, last[0], plain)
        return 1

    cdef inline bint _is_plain(self, const block_walk* walk, uint32_t last) noexcept nogil:
        """Whether nothing is pending, and the last edge leads to the last block."""
        return not (walk.event or walk.payload_bits or walk.instructions or walk.cycles) and (
            walk.previous and last
            and self.edges.rows[last - 1].to == walk.blocks[walk.previous].start)

    cdef void _learn(self, block_walk* walk, uint32_t before, uint32_t word, const uint32_t* edges,
                     Py_ssize_t count, uint32_t last, bint plain) noexcept nogil:
        """Remember what one way after another was, if it is always that."""
        cdef step* s = self._place(before, word)
        if not self._is_plain(walk, last):
            return
        self.before = word
        if not before or not plain or not 0 < count <= BLOCKS_MAX * WALK_BRANCHES:
            return
        if count > HERE and self.pooled + count > POOL:
            self._count_uses()
            self._forget_steps()
            self.before = word
        if s.ways:
            self._count(s)
        s.ways, s.count, s.uses = <uint64_t> before << 32 | word, <uint32_t> count, 0
        s.block, s.pooled = walk.previous, self.pooled
        if count <= HERE:
            memcpy(&s.edges[0], edges, 4 * count)
        else:
            memcpy(&self.pool[self.pooled], edges, 4 * count)
            self.pooled += <uint32_t> count
