"""Edge numbers to one arithmetic-coded stream, and back: the small coding of .lbrt.

Several paths to a node vote on its next edge, and learn whose votes count.  `lbrt_small_reference`
is the plain twin, docs/trace-format.md the specification.
"""

cimport cython
from libc.math cimport exp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

import numpy as np

from pylbr.trace._guesses cimport mixed

cdef enum:
    VOTES = 7
    SLOT_BITS = 16
    SLOTS = 1 << SLOT_BITS
    MOST = 1 << 22      # the greatest weight
    SETS = 64           # of weights


ctypedef struct slot:
    uint16_t odds
    uint8_t seen
    uint8_t tag

ctypedef struct task_path:
    uint64_t paths[VOTES]
    uint32_t node
    uint32_t pad

ctypedef struct coder:
    uint8_t* data
    size_t size
    size_t at
    uint32_t low
    uint32_t high
    uint32_t code

cdef int SHIFT[VOTES]
SHIFT[0], SHIFT[1], SHIFT[2], SHIFT[3], SHIFT[4], SHIFT[5], SHIFT[6] = 0, 64, 32, 16, 8, 4, 2

cdef int32_t CURVE[33]
cdef int32_t STRETCH[4096]
cdef uint32_t RATE[64]


cdef int32_t squash(int64_t x) noexcept nogil:
    """A logarithm of odds as a probability, of 4096."""
    cdef int32_t d = <int32_t> max(min(x, 2047), -2047), part = d & 127
    d = (d >> 7) + 16
    return (CURVE[d] * (128 - part) + CURVE[d + 1] * part + 64) >> 7


cdef void _tables() noexcept:
    cdef int i, d, at = 0
    for i in range(33):
        CURVE[i] = <int32_t> (4096 / (1 + exp((16 - i) / 2.0)) + 0.5)
    for d in range(-2047, 2048):
        while at <= squash(d):
            STRETCH[at] = d
            at += 1
    while at < 4096:
        STRETCH[at] = 2047
        at += 1
    for i in range(64):
        RATE[i] = 655360 // (10 * i + 16)

_tables()


@cython.final
cdef class Small:
    """The graph of a trace, and what votes on its next edge.

    Parameters
    ----------
    source, target : (n,) arrays of uint32
        Nodes of each edge.
    nodes : int
    limits : sequence of int
        Edges that there are after each graph part.
    """

    cdef object _source, _target, _edge_of, _first, _rank_of, _ways, _limits, _slots
    cdef const uint32_t* target
    cdef const uint32_t* edge_of
    cdef const uint32_t* rank_of
    cdef const uint32_t* first
    cdef const uint32_t* ways
    cdef slot* slots
    cdef int32_t weights[SETS][VOTES]
    cdef uint32_t nodes
    cdef int version

    def __cinit__(self, source, target, nodes, limits):
        self._source = np.ascontiguousarray(source, np.uint32)
        self._target = np.ascontiguousarray(target, np.uint32)
        self._limits, self.nodes, self.version = list(limits), nodes, -1
        self._edge_of = np.argsort(self._source, kind="stable").astype(np.uint32)
        ways = np.bincount(self._source, minlength=nodes)
        self._first = np.zeros(nodes + 1, np.uint32)
        np.cumsum(ways, out=self._first[1:])
        self._rank_of = np.empty(len(self._source), np.uint32)
        self._rank_of[self._edge_of] = np.arange(len(self._source), dtype=np.uint32) - self._first[
            self._source[self._edge_of]]
        self._slots = np.empty(VOTES * SLOTS, np.uint32)
        cdef size_t to = self._target.ctypes.data, edges = self._edge_of.ctypes.data
        cdef size_t ranks = self._rank_of.ctypes.data, begin = self._first.ctypes.data
        cdef size_t slots = self._slots.ctypes.data
        self.target, self.edge_of = <const uint32_t*> to, <const uint32_t*> edges
        self.rank_of, self.first = <const uint32_t*> ranks, <const uint32_t*> begin
        self.slots = <slot*> slots

    def use(self, int version):
        """Let the graph be what it is after `version` graph parts, at least 1."""
        if version == self.version:
            return
        limit = self._limits[version - 1]
        self._ways = np.bincount(self._source[:limit], minlength=self.nodes).astype(np.uint32)
        cdef size_t ways = self._ways.ctypes.data
        self.ways = <const uint32_t*> ways
        self.version = version

    def encode(self, const uint32_t[::1] numbers, const uint32_t[::1] tasks,
               const uint32_t[::1] lengths, const uint32_t[::1] nodes):
        """The stream of some edges; parameters as those of `Walk.encode`.

        Returns
        -------
        bytes
        """
        cdef Py_ssize_t i, at = 0, n = numbers.shape[0]
        data = np.empty(16 * n + 64, np.uint8)
        cdef uint8_t[::1] room = data
        cdef coder c = coder(&room[0], 0, 0, 0, 0xFFFFFFFF, 0)
        cdef uint32_t[::1] edges = np.array(numbers)
        places = self._begin(nodes)
        cdef size_t where = places.ctypes.data
        cdef task_path* paths = <task_path*> where
        for i in range(lengths.shape[0]):
            # A rank has at most 22 bits, each of which costs two bytes at most.
            if c.at + 48 * <size_t> lengths[i] + 64 > <size_t> room.shape[0]:
                data = np.concatenate([data, np.empty(48 * lengths[i] + len(data), np.uint8)])
                room = data
                c.data = &room[0]
            with nogil:
                self._task(&c, &paths[tasks[i]], &edges[at] if lengths[i] else NULL, lengths[i],
                           True)
            at += lengths[i]
        room[c.at] = <uint8_t> ((c.low >> 24) + 1)
        return data[:c.at + 1].tobytes()

    def decode(self, Py_ssize_t count, const uint32_t[::1] tasks, const uint32_t[::1] lengths,
               const uint32_t[::1] nodes, bytes data):
        """The first `count` edges of a stream.

        Returns
        -------
        (count,) array of uint32

        Raises
        ------
        ValueError
            The stream contradicts the graph.
        """
        cdef Py_ssize_t i, at = 0, step
        cdef coder c = coder(<uint8_t*> data, len(data), 0, 0, 0xFFFFFFFF, 0)
        result = np.empty(count, np.uint32)
        cdef uint32_t[::1] out = result
        if len(nodes) and np.max(nodes) >= self.nodes:
            raise ValueError("a place that does not exist")
        if len(tasks) and np.max(tasks) >= len(nodes):
            raise ValueError("a task without a place")
        places = self._begin(nodes)
        cdef size_t where = places.ctypes.data
        cdef task_path* paths = <task_path*> where
        cdef bint good = True
        for _ in range(4):
            c.code = c.code << 8 | _next_byte(&c)
        for i in range(lengths.shape[0]):
            step = min(<Py_ssize_t> lengths[i], count - at)
            if not step or not good:
                break
            with nogil:
                good = self._task(&c, &paths[tasks[i]], &out[at], step, False)
            at += step
        if not good or at < count:
            raise ValueError("its stream ends early, or leads to a place that nothing leaves")
        if at == sum(lengths) and c.at != c.size + 3:
            raise ValueError("more in its stream than its rows need")
        return result

    cdef object _begin(self, const uint32_t[::1] nodes):
        """Nothing is learned yet, and each task is where it stands: an array of `task_path`."""
        cdef int i, k
        places = np.zeros(len(nodes), [("paths", "u8", VOTES), ("node", "u4"), ("pad", "u4")])
        places["node"] = nodes
        self._slots[:] = 1 << 15  # the odds; nothing seen
        for i in range(SETS):
            for k in range(VOTES):
                self.weights[i][k] = 19661
        return places

    cdef bint _task(self, coder* c, task_path* place, uint32_t* edges, Py_ssize_t count,
                    bint encoding) noexcept nogil:
        """Edges of one task; False where nothing leads on or the stream has ended."""
        cdef Py_ssize_t i
        cdef uint32_t node = place.node, ways, rank, edge
        cdef uint64_t mix
        cdef int k
        for i in range(count):
            ways = self.ways[node]
            if ways == 0:
                return False
            rank = self.rank_of[edges[i]] if encoding else 0
            if ways > 1:
                rank = self._choice(c, place, node, ways, rank, encoding)
            edge = self.edge_of[self.first[node] + rank]
            if ways > 1:
                mix = mixed(<uint64_t> edge + 1)
                place.paths[1] = mix
                for k in range(2, VOTES):
                    place.paths[k] = (place.paths[k] << SHIFT[k]) ^ mix
            edges[i] = edge
            node = self.target[edge]
        place.node = node
        return encoding or c.at <= c.size + 3

    cdef uint32_t _choice(self, coder* c, const task_path* place, uint32_t node, uint32_t ways,
                          uint32_t rank, bint encoding) noexcept nogil:
        """A rank below `ways`, from its highest bit on."""
        cdef uint32_t prefix = 1, bits = 0
        cdef bint bit
        while <uint32_t> 1 << bits < ways:
            bits += 1
        while bits:
            bits -= 1
            # With a 1 here it would be too great.
            if ((prefix << 1 | 1) << bits) - (<uint32_t> 1 << self._length(ways)) >= ways:
                prefix <<= 1
                continue
            bit = rank >> bits & 1
            prefix = prefix << 1 | self._bit(c, place, node, prefix, ways > 2, bit, encoding)
        return prefix - (<uint32_t> 1 << self._length(ways))

    cdef inline uint32_t _length(self, uint32_t ways) noexcept nogil:
        """Bits of the greatest rank."""
        cdef uint32_t bits = 0
        while <uint32_t> 1 << bits < ways:
            bits += 1
        return bits

    cdef bint _bit(self, coder* c, const task_path* place, uint32_t node, uint32_t prefix,
                   bint many, bint bit, bint encoding) noexcept nogil:
        """One bit of a rank: vote, code, learn."""
        cdef slot* found[VOTES]
        cdef int32_t votes[VOTES]
        cdef int32_t error, probability
        cdef int32_t* weights
        cdef int64_t total = 0
        cdef uint64_t h, key = node * <uint64_t> 0xD6E8FEB86659FD93u ^ <uint64_t> prefix << 48
        cdef uint32_t middle
        cdef int k, sure = 0, seen
        for k in range(VOTES):
            h = (place.paths[k] ^ key) * <uint64_t> 0x9E3779B97F4A7C15u
            found[k] = &self.slots[k * SLOTS + (h >> (64 - SLOT_BITS))]
            if found[k].tag != <uint8_t> (h >> 32):
                found[k].odds, found[k].seen, found[k].tag = 1 << 15, 0, <uint8_t> (h >> 32)
            votes[k] = 0
            if found[k].seen:
                votes[k], sure = STRETCH[found[k].odds >> 4], k + 1
        seen = found[max(sure - 1, 0)].seen
        weights = self.weights[(sure * 4 + (seen > 1) + (seen > 5) + (seen > 20)) * 2 + many]
        for k in range(VOTES):
            total += (<int64_t> votes[k] * weights[k]) >> 16
        probability = squash(total)
        middle = c.low + ((c.high - c.low) >> 16) * <uint32_t> (probability * 16 + 8)
        if not encoding:
            bit = c.code <= middle
        if bit:
            c.high = middle
        else:
            c.low = middle + 1
        while not (c.low ^ c.high) >> 24:
            if encoding:
                c.data[c.at] = <uint8_t> (c.high >> 24)
                c.at += 1
            else:
                c.code = c.code << 8 | _next_byte(c)
            c.low <<= 8
            c.high = c.high << 8 | 255
        error = ((<int32_t> bit << 12) - probability) * 6
        for k in range(VOTES):
            weights[k] = max(-MOST, min(MOST, weights[k] + ((votes[k] * error + 0x8000) >> 14)))
            found[k].odds = <uint16_t> (found[k].odds + (
                ((65535 if bit else 0) - <int64_t> found[k].odds) * RATE[found[k].seen] >> 16))
            if found[k].seen < (60 if k < 2 else 30):
                found[k].seen += 1
        return bit


cdef inline uint8_t _next_byte(coder* c) noexcept nogil:
    """The next byte; zeros follow the last."""
    c.at += 1
    return c.data[c.at - 1] if c.at <= c.size else 0
