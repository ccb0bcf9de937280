"""Edge numbers of a .lbrt file from the numbers of the blocks that ran, without branches between.

Which branch follows an edge, when a block ends and another begins, is worked out once
(`_blocks.walk_word`) and remembered; the twin is `BlockWalk.feed` and `Edges.number`.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

import numpy as np

from lbrcore import BRANCH_DTYPE
from lbrcore.lbr cimport lbr_branch
from pylbr.record._blocks cimport WALK_BRANCHES, WIRE_PAYLOAD, BlockWalk, block_walk, walk_word
from pylbr.trace._edges cimport Edges, words

#: Branches that one word makes at most.
BRANCHES_PER_WORD = WALK_BRANCHES


@cython.final
cdef class Numbered:
    """The steps of one trace: what follows each edge, by the blocks.

    Parameters
    ----------
    edges : Edges
    """

    def __cinit__(self, Edges edges):
        self.edges = edges
        self._odd = np.zeros(ODD_ROWS + WALK_BRANCHES, BRANCH_DTYPE)
        self.odd = <lbr_branch*> <size_t> self._odd.ctypes.data
        self.forget()

    def forget(self):
        """Edges have other numbers from now on."""
        self.room = 0
        self._make_room()

    cdef _make_room(self):
        """A place for each edge that there can be."""
        old = self._known if self.room else np.empty(0, np.uint64)
        self.room = self.edges.edge_room + 1
        self._known = np.zeros(self.room * sizeof(known) // 8, np.uint64)
        self._known[:len(old)] = old
        self.steps = <known*> <size_t> self._known.ctypes.data

    cdef _make_rooms(self):
        """Room for the edges of one word, and for what follows them."""
        while not self._roomy():
            self.edges.make_room()
        if self.room < self.edges.edge_room + 1:
            self._make_room()

    def number(self, BlockWalk blocks, const uint32_t[::1] ran, Py_ssize_t first,
               uint32_t[::1] out, uint32_t last):
        """Number the branches of one thread.

        Parameters
        ----------
        blocks : BlockWalk
            The thread's, which is brought forward.
        ran : (n,) array of uint32
            Words of its ring.
        first : int
            The word to begin at.
        out : (m,) array of uint32
            Takes the numbers.
        last : int
            1 + number of the thread's edge before, 0 at its beginning.

        Returns
        -------
        taken, count, last : int
            Words taken: fewer than there are if `out` is full, many branches have other values
            than their edge, or a number is of no block, which is the next one then.  Numbers in
            `out`.  What `last` shall be for the next words.
        where : (k,) array of int64
            Which of the numbers are of branches with other values than their edge.
        branches : (k,) array of BRANCH_DTYPE
            These.

        """
        cdef block_walk* walk = &blocks.walk
        cdef Py_ssize_t at = first, n = ran.shape[0], count = 0, room = out.shape[0]
        cdef Py_ssize_t odd = 0
        cdef int got
        where = np.empty(ODD_ROWS + WALK_BRANCHES, np.int64)
        cdef long long[::1] places = where
        while at < n and count + WALK_BRANCHES <= room and odd < ODD_ROWS:
            self._make_rooms()
            with nogil:
                got = 0
                while at < n and count + WALK_BRANCHES <= room and odd < ODD_ROWS and (
                        self._roomy()):
                    got = self._word(walk, ran[at], &out[count], &last, &places[odd], &odd, count)
                    if got < 0:
                        break
                    count += got
                    at += 1
            if got < 0:
                break
        return at - first, count, last, where[:odd], self._odd[:odd].copy()

    cdef inline bint _roomy(self) noexcept nogil:
        """Whether the branches of one word fit among the edges."""
        return (self.edges.edges + WALK_BRANCHES < self.edges.edge_room
                and self.edges.nodes + WALK_BRANCHES < self.edges.node_room)

    cdef inline int _word(self, block_walk* walk, uint32_t word, uint32_t* out, uint32_t* last,
                          long long* places, Py_ssize_t* odd, Py_ssize_t count) noexcept nogil:
        """Take one word; the number of its branches."""
        cdef pair blocks = 0
        cdef known* step = &self.steps[last[0]]
        cdef uint32_t* seen
        cdef int which
        if not (word & ~(<uint32_t> WIRE_PAYLOAD - 1)) and word < walk.block_count and (
                walk.previous and not (walk.event | walk.instructions | walk.payload_bits)
                and not walk.cycles):
            blocks = <pair> walk.previous << 32 | word
            which = step.blocks[0] != blocks
            if not which or step.blocks[1] == blocks:
                out[0] = step.edge[which]
                seen = &self.edges.seen[out[0]]
                seen[0] = seen[0] + 1
                last[0] = out[0] + 1
                walk.previous = word
                return 1
        return self._other(walk, word, blocks, step, out, last, places, odd, count)

    cdef int _other(self, block_walk* walk, uint32_t word, pair blocks, known* step,
                    uint32_t* out, uint32_t* last, long long* places, Py_ssize_t* odd,
                    Py_ssize_t count) noexcept nogil:
        """A word whose branches are not known yet."""
        cdef lbr_branch rows[WALK_BRANCHES]
        cdef bint differs = False, any_differs = False
        cdef int i, got = walk_word(walk, word, rows)
        cdef Py_ssize_t found = 0
        for i in range(got):
            out[i] = self.edges.take(<const words*> &rows[i], last[0], &differs)
            last[0] = out[i] + 1
            if differs:
                self.odd[odd[0]] = rows[i]
                places[found] = count + i
                odd[0] += 1
                found += 1
                any_differs = True
        if got == 1 and blocks and not any_differs and not (walk.instructions or walk.cycles):
            step.blocks[1], step.edge[1] = step.blocks[0], step.edge[0]
            step.blocks[0], step.edge[0] = blocks, out[0]
        return got
