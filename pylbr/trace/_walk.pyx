"""Edge numbers to what a reader cannot guess, and back: the codec of .lbrt at full speed.

`lbrt_reference` is the plain twin, docs/trace-format.md the specification.
"""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.trace._guesses cimport (
    BAD_GUESSES, BAD_NODE, BAD_RANKS, BAD_RUNS, MANY_BITS, MANY_SURE, NEAR_MOST, NODE_SURE, ODDS,
    OTHER_ODDS, PATH_BITS, PATH_SURE, TWO_ODDS, VARINTS, arc, begin_reading, context, end_guesses,
    learn_many, many_entry, mixed, node_learned, pack_runs, path_entry, path_learned, put,
    put_guess, put_run, put_sure, read_to_the_end, streams, two_contexts, walk_graph, walk_row,
    walk_rows, walk_tables, writing,
)

from pylbr.trace.lbrt_layout import FIRST_ODDS

cdef enum:
    CHAIN = 32          # rows in a row that are copied without looking
    SLACK = 36
    VERSIONS = 16       # whose arrays are kept

_TROUBLE = {
    BAD_RUNS: "the runs end early", BAD_GUESSES: "the guesses end early",
    BAD_RANKS: "the ranks are damaged", BAD_NODE: "a place that nothing leaves",
}
walk_tables()


@cython.final
cdef class Walk:
    """The graph of a trace, and the state that guesses its next edge.

    Parameters
    ----------
    rows : (n,) array of BRANCH_DTYPE
        Of each edge.
    source, target : (n,) arrays of uint32
        Nodes of each edge.
    nodes : int
    limits : sequence of int
        Edges that there are after each graph part.
    starts : sequence of (array of uint32, array of uint32)
        Of each graph part: nodes with more than one way, and their starting values.
    """

    cdef object _rows, _source, _target, _chains, _numbers, _arcs, _first, _ways, _limits, _starts
    cdef object _node_start, _rank_start, _node_state, _rank_state, _edge_of, _rank_of
    cdef tuple _room         # for what `encode` writes
    cdef Py_ssize_t edges, nodes
    cdef walk_graph g
    cdef const uint32_t* rank_of
    cdef path_entry paths[1 << 13]      # PATH_BITS
    cdef many_entry far_many[1 << 12]   # MANY_BITS
    cdef many_entry near_many[1 << 12]
    cdef dict _versions
    cdef int version

    def __cinit__(self, rows, source, target, nodes, limits, starts):
        self.edges, self.nodes, self.version = len(rows), nodes, -1
        self._rows = np.ascontiguousarray(rows, BRANCH_DTYPE)
        self._source = np.ascontiguousarray(source, np.uint32)
        self._target = np.ascontiguousarray(target, np.uint32)
        self._limits, self._starts, self._versions = list(limits), list(starts), {}
        # Arcs: the edges by source, those of earlier parts first.
        self._edge_of = np.argsort(self._source, kind="stable").astype(np.uint32)
        ways = np.bincount(self._source, minlength=nodes).astype(np.uint32)
        self._first = np.zeros(nodes + 1, np.uint32)
        np.cumsum(ways, out=self._first[1:])
        self._rank_of = np.empty(self.edges, np.uint32)
        self._rank_of[self._edge_of] = np.arange(self.edges, dtype=np.uint32) - self._first[
            self._source[self._edge_of]]
        self._chain(ways)

    def _chain(self, ways):
        """The rows that follow an edge without a choice, up to CHAIN, so that they are copied."""
        cdef uint32_t[::1] first = self._first, target = self._target, edge_of = self._edge_of
        cdef uint32_t[::1] way = ways
        cdef Py_ssize_t i, room = 8 * self.edges + (1 << 16), at = 0
        cdef uint32_t edge, node
        numbers = np.zeros(room + SLACK, np.uint32)
        self._arcs = np.zeros(self.edges * sizeof(arc) + 64, np.uint8)
        cdef uint32_t[::1] number = numbers
        cdef unsigned char[::1] raw = self._arcs
        # No arc in two lines of the cache.
        cdef arc* arcs = <arc*> ((<size_t> &raw[0] + 31) // 32 * 32)
        self.g.arcs = arcs
        with nogil:
            for i in range(self.edges):
                edge = edge_of[i]
                arcs[i].mix = mixed(<uint64_t> edge + 1)
                arcs[i].chain = <uint32_t> at
                while True:
                    number[at] = edge
                    at += 1
                    arcs[i].length += 1
                    node = target[edge]
                    if way[node] != 1 or arcs[i].length == CHAIN:
                        break
                    if at + self.edges - i >= room:  # each needs one row
                        break
                    edge = edge_of[first[node]]
                arcs[i].next = node
                arcs[i].base = first[node]
                arcs[i].key = node * <uint64_t> 0xD6E8FEB86659FD93u
        self._numbers, self._chains = numbers[:at + SLACK].copy(), None

    cdef _chain_rows(self):
        """The rows of the chains: only a reader needs them."""
        cdef size_t chains
        self._chains = np.zeros(len(self._numbers), BRANCH_DTYPE)
        if self.edges:
            np.take(self._rows, self._numbers[:-SLACK], out=self._chains[:-SLACK], mode="clip")
        chains = self._chains.ctypes.data
        self.g.chains = <const walk_row*> chains

    def use(self, int version):
        """Let the graph be what it is after `version` graph parts, at least 1."""
        if version == self.version:
            return
        if version not in self._versions:
            if len(self._versions) == VERSIONS:
                self._versions.pop(next(iter(self._versions)))
            self._versions[version] = self._at_version(version)
        self._ways, self._node_start, self._rank_start = self._versions[version]
        if self.version < 0:
            self._node_state = np.empty(self.nodes, np.int8)
            self._rank_state = np.empty(self.nodes, np.uint32)
        self._take()
        self.version = version

    def _at_version(self, version):
        """Ways of each node after some graph parts, and how its guesses begin."""
        ways = np.bincount(
            self._source[:self._limits[version - 1]], minlength=self.nodes).astype(np.uint32)
        node_start, rank_start = np.zeros(self.nodes, np.int8), np.zeros(self.nodes, np.uint32)
        begin = np.array([0, -NODE_SURE, NODE_SURE, -(NODE_SURE // 4), NODE_SURE // 4], np.int8)
        for nodes, values in self._starts[:version]:
            two = ways[nodes] == 2
            node_start[nodes[two]] = begin[np.minimum(values[two], 4)]
            rank_start[nodes[~two]] = values[~two]
        return ways, node_start, rank_start

    cdef _take(self):
        """Addresses of the arrays."""
        cdef size_t numbers = self._numbers.ctypes.data, target = self._target.ctypes.data
        cdef size_t first = self._first.ctypes.data, ways = self._ways.ctypes.data
        cdef size_t states = self._node_state.ctypes.data, ranks = self._rank_state.ctypes.data
        cdef size_t rank_of = self._rank_of.ctypes.data
        self.g.numbers, self.g.target = <const uint32_t*> numbers, <const uint32_t*> target
        self.g.first, self.g.ways = <const uint32_t*> first, <const uint32_t*> ways
        self.g.node_state, self.g.rank_state = <int8_t*> states, <uint32_t*> ranks
        self.g.paths, self.g.far_many, self.g.near_many = self.paths, self.far_many, self.near_many
        self.rank_of = <const uint32_t*> rank_of

    cdef _restart(self, streams* s, bint plain):
        cdef const int8_t[::1] nodes = self._node_start
        cdef const uint32_t[::1] ranks = self._rank_start
        cdef const uint8_t[::1] odds = FIRST_ODDS
        cdef int i
        memcpy(self.g.node_state, &nodes[0], self.nodes)
        memcpy(self.g.rank_state, &ranks[0], 4 * self.nodes)
        memset(self.paths, 0, sizeof(self.paths))
        memset(self.far_many, 0, sizeof(self.far_many))
        memset(self.near_many, 0, sizeof(self.near_many))
        memset(s, 0, sizeof(streams))
        s.high, s.speed, s.rest = 0xFFFFFFFFu, 5 if plain else 6, VARINTS if plain else 0
        for i in range(ODDS):
            s.odds[i] = 1 << 14 if plain else <unsigned short> ((odds[i] << 8) + 128)

    # Encoding -------------------------------------------------------------------------

    def encode(self, const uint32_t[::1] numbers, const uint32_t[::1] tasks,
               const uint32_t[::1] lengths, const uint32_t[::1] nodes):
        """What a reader needs beside the graph.

        Parameters
        ----------
        numbers : (n,) array of uint32
            Edges, oldest first.
        tasks, lengths : (runs,) arrays of uint32
            The task of each run of rows, from 0 on in the order of appearance, and its rows.
        nodes : (tasks,) array of uint32
            Where each task stands.

        Returns
        -------
        (runs, guesses, ranks) : bytes
        """
        cdef Py_ssize_t i, n = len(numbers)
        cdef size_t at = 0, size = 0
        if self._room is None or len(self._room[0]) < n + 1:
            self._room = (np.empty(n + 1, np.uint32), np.empty(n // 4 + 32, np.uint8),
                          np.empty(8 * n + 16, np.uint8), np.empty(5 * n + 16, np.uint8))
        run_values, runs, guesses, ranks = self._room
        cdef uint32_t[::1] value_view = run_values
        cdef uint8_t[::1] run_view = runs, guess_view = guesses, rank_view = ranks
        cdef writing w
        memset(&w, 0, sizeof(writing))
        w.runs, w.guesses, w.ranks = &value_view[0], &guess_view[0], &rank_view[0]
        contexts = np.zeros(len(nodes) * sizeof(context) + 8, np.uint8)
        cdef uint8_t[::1] raw = contexts
        cdef context* places = <context*> &raw[0]
        for i in range(nodes.shape[0]):
            places[i].node = nodes[i]
        self._restart(&w.s, False)
        with nogil:
            for i in range(lengths.shape[0]):
                self._encode(&w, &places[tasks[i]], &numbers[at] if lengths[i] else NULL,
                             lengths[i])
                at += lengths[i]
            put_run(&w)
            end_guesses(&w)
            size = pack_runs(w.runs, w.run_at, &run_view[0])
        return (runs[:size].tobytes(), guesses[:w.guess_at].tobytes(),
                ranks[:w.rank_at].tobytes())

    cdef void _encode(self, writing* s, context* c, const uint32_t* numbers,
                      size_t count) noexcept nogil:
        cdef size_t at = 0
        cdef uint32_t node = c.node, base = self.g.first[node], ways, rank
        cdef uint64_t near = c.near, far = c.far
        cdef const arc* a
        cdef bint remember
        while at < count:
            ways = self.g.ways[node]
            rank, remember = 0, False
            if ways > 1:
                rank = self.rank_of[numbers[at]]
                remember = (self._encode_two(s, node, far, rank) if ways == 2 else
                            self._encode_many(s, node, near, far, rank))
            a = &self.g.arcs[base + rank]
            if remember:
                near, far = near << 32 ^ a.mix, far << 10 ^ a.mix
            at += a.length
            node, base = a.next, a.base
        if count:
            c.node = self.g.target[numbers[count - 1]]
        c.near, c.far = near, far

    cdef inline bint _encode_two(self, writing* s, uint32_t node, uint64_t far,
                                 bint taken) noexcept nogil:
        """One of two ways; whether it becomes part of the path."""
        cdef int8_t state = self.g.node_state[node], path
        cdef uint64_t hashed
        cdef uint8_t tag
        cdef path_entry* entry
        if state == NODE_SURE or state == -NODE_SURE:
            put_sure(s, &self.g.node_state[node], taken, node_learned[taken])
            return False
        hashed = (far ^ node * <uint64_t> 0xD6E8FEB86659FD93u) * 0x9E3779B97F4A7C15u
        entry, tag = &self.paths[hashed >> (64 - PATH_BITS)], <uint8_t> (hashed >> 32)
        path = entry.state if entry.tag == tag else 0
        if path == PATH_SURE or path == -PATH_SURE:
            put_sure(s, &entry.state, taken, path_learned[taken])
        else:
            put_guess(s, two_contexts[path + PATH_SURE][<uint8_t> state],
                      ((path if path else state) > 0) != taken)
            entry.tag, entry.state = tag, path_learned[taken][<uint8_t> path]
        self.g.node_state[node] = node_learned[taken][<uint8_t> state]
        return True

    cdef bint _encode_many(self, writing* s, uint32_t node, uint64_t near, uint64_t far,
                           uint32_t rank) noexcept nogil:
        cdef uint64_t key = node * <uint64_t> 0xD6E8FEB86659FD93u
        cdef uint64_t hashed = (far ^ key) * 0x9E3779B97F4A7C15u
        cdef uint64_t nearer = (near ^ key) * 0x9E3779B97F4A7C15u
        cdef many_entry* f = &self.far_many[hashed >> (64 - MANY_BITS)]
        cdef many_entry* n = &self.near_many[nearer >> (64 - MANY_BITS)]
        cdef uint8_t f_tag = <uint8_t> (hashed >> 32), n_tag = <uint8_t> (nearer >> 32)
        cdef uint32_t guess, other
        cdef uint8_t f_state = f.state if f.tag == f_tag else 0
        cdef uint8_t n_state = n.state if n.tag == n_tag else 0
        guess = f.rank if f_state else n.rank if n_state else self.g.rank_state[node]
        other = n.rank if f_state and n_state and n.rank != guess else self.g.rank_state[node]
        if f_state == MANY_SURE:
            if guess == rank:
                s.run += 1
                return True
            put_run(s)
        else:
            put_guess(s, TWO_ODDS + f_state * 15 + n_state, guess != rank)
        if guess != rank:
            if other != guess:
                put_guess(s, OTHER_ODDS + n_state, other != rank)
            if other == guess or other != rank:
                put(s.ranks, &s.rank_at, rank)
        learn_many(f, f_tag, rank, MANY_SURE)
        learn_many(n, n_tag, rank, NEAR_MOST)
        self.g.rank_state[node] = rank
        return True

    # Decoding -------------------------------------------------------------------------

    def decode(self, Py_ssize_t count, const uint32_t[::1] tasks, const uint32_t[::1] lengths,
               const uint32_t[::1] nodes, bytes runs, bytes guesses, bytes ranks, out,
               Py_ssize_t skip=0, bint plain=False):
        """The rows of a piece, from `skip` to `count`.

        Parameters
        ----------
        count, skip : int
            Rows that are decoded, and those of them that are not stored.
        tasks, lengths, nodes
            As those of `encode`.
        runs, guesses, ranks : bytes
            What `encode` returned.
        out : (count - skip + SLACK,) array of BRANCH_DTYPE or uint32, C-contiguous
            Takes the rows, or the numbers of the edges.  What follows them is overwritten.
        plain : bool
            Of a part `PIEC`.

        Raises
        ------
        ValueError
            The streams contradict the graph.
        """
        cdef Py_ssize_t i
        cdef size_t at = 0, step, before, place
        cdef int trouble
        cdef streams s
        if (not 0 <= skip <= count or len(out) < count - skip + SLACK
                or out.dtype not in (BRANCH_DTYPE, np.uint32)):
            raise ValueError("out: wrong dtype or too short")
        cdef size_t data = out.ctypes.data
        if self._chains is None and out.dtype == BRANCH_DTYPE:
            self._chain_rows()
        cdef walk_row* rows = <walk_row*> data if out.dtype == BRANCH_DTYPE else NULL
        cdef uint32_t* numbers = <uint32_t*> data if rows == NULL else NULL
        contexts = np.zeros(len(nodes) * sizeof(context) + 8, np.uint8)
        cdef uint8_t[::1] raw = contexts
        cdef context* places = <context*> &raw[0]
        for i in range(nodes.shape[0]):
            if nodes[i] >= self.nodes:
                raise ValueError("a place that does not exist")
            places[i].node = nodes[i]
        for i in range(tasks.shape[0]):
            if tasks[i] >= nodes.shape[0]:
                raise ValueError("a task without a place")
        self._restart(&s, plain)
        s.runs, s.run_bytes = <const uint8_t*> runs, len(runs)
        s.guesses, s.guess_bytes = <const uint8_t*> guesses, len(guesses)
        s.ranks, s.rank_bytes = <const uint8_t*> ranks, len(ranks)
        with nogil:
            trouble = begin_reading(&s)
            for i in range(lengths.shape[0]):
                step = min(<size_t> lengths[i], <size_t> count - at)
                if trouble or not step:
                    break
                before = min(<size_t> skip - at, step) if at < <size_t> skip else 0
                place = at + before - skip if at + before > <size_t> skip else 0
                trouble = walk_rows(&self.g, &s, &places[tasks[i]],
                                    rows + place if rows != NULL else NULL,
                                    numbers + place if rows == NULL else NULL, step, before)
                at += step
        if trouble:
            raise ValueError(_TROUBLE[trouble])
        if at < <size_t> count:
            raise ValueError("fewer rows than it should have")
        if at == sum(lengths) and not read_to_the_end(&s):
            raise ValueError("more in its streams than its rows need")
