"""Branches to edge numbers: each distinct step from one place to the next has a number.

A place is where execution arrives, the `to` of a row; an edge leads from the place of the row
before to that of its own row.  `lbrt_reference` describes what the numbers are for.
"""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.trace._guesses cimport get, put

#: Class and privilege levels among the last eight bytes of a branch: they distinguish edges.
cdef uint64_t KEY = 0xFFFF00FF
cdef uint32_t NONE = 0xFFFFFFFF


cdef inline uint64_t scatter(uint64_t x) noexcept nogil:
    x *= 0x9E3779B97F4A7C15u
    x ^= x >> 32
    return x * 0xD6E8FEB86659FD93u


cdef object address_of(array):
    return array.__array_interface__["data"][0]


@cython.final
cdef class Edges:
    """Numbers for the edges of a trace, in the order of their first use until `settle`.

    Parameters
    ----------
    counts_mask, rest_mask : int
        Bits of the third and fourth 64-bit words of a row that are kept; the others become 0.

    Attributes
    ----------
    edges, nodes : int
        How many there are; node 0 is the place before the first row.
    differing : int
        Rows so far whose other fields differ from those of their edge.
    """

    def __cinit__(self, counts_mask, rest_mask):
        self.counts_mask, self.rest_mask = counts_mask, rest_mask
        self.nodes = 1
        self._rows = np.empty(0, BRANCH_DTYPE)
        self._source = self._target = self._seen = np.empty(0, np.uint32)
        self._after = np.full(2, NONE, np.uint32)
        self._addresses = np.zeros(1, np.uint64)
        self._grow()

    cdef object _longer(self, object array, Py_ssize_t count, value=0):
        longer = np.full(count, value, array.dtype) if value else np.zeros(count, array.dtype)
        longer[:len(array)] = array
        return longer

    cdef _grow(self):
        """Room for more edges and nodes, with hash tables at most half full."""
        self.edge_room = max(1 << 12, 2 * self.edges)
        self.node_room = max(1 << 12, 2 * self.nodes)
        self._rows = self._longer(self._rows[:self.edges], self.edge_room)
        self._source = self._longer(self._source[:self.edges], self.edge_room)
        self._target = self._longer(self._target[:self.edges], self.edge_room)
        self._seen = self._longer(self._seen[:self.edges], self.edge_room)
        self._after = self._longer(
            self._after[:2 * self.edges + 2], 2 * self.edge_room + 2, NONE)
        self._addresses = self._longer(self._addresses[:self.nodes], self.node_room)
        self._index()

    cdef _index(self):
        """Take the arrays' addresses, and fill the hash tables again."""
        cdef Py_ssize_t i
        self.rows = <words*> <size_t> address_of(self._rows)
        self.source = <uint32_t*> <size_t> address_of(self._source)
        self.target = <uint32_t*> <size_t> address_of(self._target)
        self.seen = <uint32_t*> <size_t> address_of(self._seen)
        self.after = <uint32_t*> <size_t> address_of(self._after)
        self.addresses = <uint64_t*> <size_t> address_of(self._addresses)
        self.edge_shift = 64 - max(13, int(2 * self.edge_room - 1).bit_length())
        self.node_shift = 64 - max(13, int(2 * self.node_room - 1).bit_length())
        self._edge_slots = np.full(1 << (64 - self.edge_shift), NONE, np.uint32)
        self._node_slots = np.full(1 << (64 - self.node_shift), NONE, np.uint32)
        self.edge_slots = <uint32_t*> <size_t> address_of(self._edge_slots)
        self.node_slots = <uint32_t*> <size_t> address_of(self._node_slots)
        with nogil:
            for i in range(1, self.nodes):
                self.node_slots[self._node_slot(self.addresses[i])] = <uint32_t> i
            for i in range(self.edges):
                self.edge_slots[self._edge_slot(self.source[i], &self.rows[i])] = <uint32_t> i

    cdef uint64_t _node_slot(self, uint64_t address) noexcept nogil:
        """Slot of the node at `address`, or the free one where it belongs."""
        cdef uint64_t most = (<uint64_t> 1 << (64 - self.node_shift)) - 1
        cdef uint64_t at = scatter(address) >> self.node_shift
        while self.node_slots[at] != NONE and self.addresses[self.node_slots[at]] != address:
            at = (at + 1) & most
        return at

    cdef uint64_t _edge_slot(self, uint32_t node, const words* row) noexcept nogil:
        """Slot of the edge from `node` that is like `row`, or the free one where it belongs."""
        cdef uint64_t most = (<uint64_t> 1 << (64 - self.edge_shift)) - 1
        cdef uint64_t at = scatter(scatter(row.from_ + node) ^ row.to ^ ((row.rest & KEY) << 40))
        cdef const words* other
        cdef uint32_t edge
        at >>= self.edge_shift
        while self.edge_slots[at] != NONE:
            edge = self.edge_slots[at]
            other = &self.rows[edge]
            if (self.source[edge] == node and other.from_ == row.from_ and other.to == row.to
                    and not (other.rest ^ row.rest) & KEY):
                break
            at = (at + 1) & most
        return at

    cdef uint32_t _number(self, uint32_t node, const words* row) noexcept nogil:
        """Number of the edge from `node` that is like `row`; a new one if there is none."""
        cdef uint64_t at = self._edge_slot(node, row), place
        cdef uint32_t edge = self.edge_slots[at]
        if edge != NONE:
            return edge
        edge = <uint32_t> self.edges
        self.edge_slots[at] = edge
        self.edges += 1
        place = self._node_slot(row.to)
        if self.node_slots[place] == NONE:
            self.node_slots[place] = <uint32_t> self.nodes
            self.addresses[self.nodes] = row.to
            self.nodes += 1
        self.rows[edge] = row[0]
        # Whether a branch was mispredicted belongs to the row, not to the edge.
        self.rows[edge].rest &= ~(<uint64_t> 4 << 8)
        self.source[edge] = node
        self.target[edge] = self.node_slots[place]
        self.seen[edge] = 0
        return edge

    def number(self, branches, uint32_t[::1] out, uint32_t last):
        """Number the branches of one task.

        Parameters
        ----------
        branches : (n,) array of BRANCH_DTYPE, C-contiguous
            Oldest first; they follow those of the task before.
        out : (n,) array of uint32
            Takes the numbers.
        last : int
            1 + number of the task's edge before, 0 at its beginning.

        Returns
        -------
        int
            What `last` shall be for the next branches.
        """
        cdef const unsigned char[::1] raw = branches.view(np.uint8)
        cdef Py_ssize_t i = 0, n = len(branches)
        cdef const words* data = <const words*> &raw[0] if n else NULL
        cdef bint differs
        while i < n:
            if not self.has_room():
                self.make_room()
            with nogil:
                while i < n and self.has_room():
                    out[i] = self.take(&data[i], last, &differs)
                    last = out[i] + 1
                    i += 1
        return last

    cdef inline bint has_room(self) noexcept nogil:
        """Whether one more edge fits."""
        return self.edges + 1 < self.edge_room and self.nodes + 1 < self.node_room

    cdef make_room(self):
        self._grow()

    cdef inline uint32_t take(self, const words* branch, uint32_t last,
                              bint* differs) noexcept nogil:
        """Number of the edge that is like `branch`, after that of number `last` - 1, and whether
        the branch has other values than the edge; there must be room."""
        cdef words row = branch[0]
        cdef uint32_t* guess = &self.after[2 * <size_t> last]
        cdef uint32_t edge = guess[0]
        cdef const words* known
        row.counts &= self.counts_mask
        row.rest &= self.rest_mask
        if edge == NONE or not self._is(&self.rows[edge], &row):
            edge = guess[1]
            if edge == NONE or not self._is(&self.rows[edge], &row):
                edge = self._number(self.target[last - 1] if last else 0, &row)
            guess[1] = guess[0]
            guess[0] = edge
        known = &self.rows[edge]
        differs[0] = known.counts != row.counts or known.rest != row.rest
        self.differing += differs[0]
        self.seen[edge] += 1
        return edge

    cdef inline bint _is(self, const words* edge, const words* row) noexcept nogil:
        return (edge.from_ == row.from_ and edge.to == row.to
                and not (edge.rest ^ row.rest) & KEY)

    def table(self):
        """Rows, source, target and uses of all edges, addresses of all nodes; copies."""
        return (self._rows[:self.edges].copy(), self._source[:self.edges].copy(),
                self._target[:self.edges].copy(), self._seen[:self.edges].copy(),
                self._addresses[:self.nodes].copy())

    def rows_of(self, numbers):
        """Rows of edges, as BRANCH_DTYPE."""
        return self._rows.take(numbers)  # structures: 50 times as fast as by index

    def forget(self, edges, nodes):
        """Drop the edges and nodes from these numbers on."""
        self.edges, self.nodes = edges, nodes
        # Guesses may name what is gone.
        self._after[:] = NONE
        self._grow()

    def settle(self, first_edge, first_node):
        """Bring the edges and nodes from these numbers on into the order of the file.

        Nodes ascend by address; edges by source, fall-through first, then by target.

        Returns
        -------
        (edges,) array of uint32
            New number of each edge.
        """
        edges, nodes = int(self.edges), int(self.nodes)
        place = np.arange(nodes, dtype=np.uint32)
        order = np.argsort(self._addresses[first_node:nodes], kind="stable") + first_node
        place[order] = np.arange(first_node, nodes, dtype=np.uint32)
        self._addresses[first_node:nodes] = self._addresses[order]
        source = place[self._source[:edges]]
        target = place[self._target[:edges]]
        rows = self._rows[first_edge:edges]
        order = np.lexsort((
            rows["from"], target[first_edge:], rows["class"] != 6, source[first_edge:],
        )) + first_edge
        number = np.arange(edges + 1, dtype=np.uint32)
        number[order] = np.arange(first_edge, edges, dtype=np.uint32)
        new = slice(first_edge, edges)
        self._rows[new], self._seen[new] = self._rows[order], self._seen[order]
        self._source[:edges], self._target[:edges] = source, target
        self._source[new], self._target[new] = source[order], target[order]
        after = self._after[:2 * edges + 2].reshape(-1, 2)
        after[1 + first_edge:] = after[1:][order]
        known = after != NONE
        after[known] = number[after[known]]
        self._index()
        return number[:edges]


def renumber(uint32_t[::1] numbers, const uint32_t[::1] table):
    """Replace each number by what the table has for it; all must lie within it."""
    cdef Py_ssize_t i
    if len(numbers) and np.max(numbers) >= len(table):
        raise ValueError("numbers: not in the table")
    with nogil:
        for i in range(numbers.shape[0]):
            numbers[i] = table[numbers[i]]


def varints(const uint8_t[::1] data):
    """All varints of some bytes, as uint64.

    Raises
    ------
    ValueError
        The last is cut off, or one does not fit 64 bits.
    """
    cdef size_t at = 0, size = data.shape[0]
    cdef Py_ssize_t n = 0
    result = np.empty(size, np.uint64)
    cdef uint64_t[::1] out = result
    cdef const uint8_t* begin = &data[0] if size else NULL
    while at < size:
        if not get(begin, size, &at, &out[n]):
            raise ValueError("a number that is cut off")
        n += 1
    return result[:n]


def to_varints(const uint64_t[::1] values):
    """Numbers as varints: seven bits per byte, lowest first, bit 7 where more follow."""
    cdef size_t at = 0
    cdef Py_ssize_t i
    result = np.empty(10 * values.shape[0] + 1, np.uint8)
    cdef uint8_t[::1] out = result
    for i in range(values.shape[0]):
        put(&out[0], &at, values[i])
    return result[:at].tobytes()
