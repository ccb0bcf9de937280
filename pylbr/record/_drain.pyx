"""Reads what the plugin writes: samples, messages and chunks of rings.

The recorded program shares the memory and may scribble over it: every size and number is
checked before it is used, and the layout is the one that `Wire` made, whatever the header
becomes later.
"""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from lbrcore import ENTRY_DTYPE
from lbrcore.batch cimport lbr_record_batch
from lbrcore.lbr cimport (
    INFO_CLASS_SHIFT, LbrState, lbr_branch, lbr_clear, lbr_entry, lbr_read_records,
)
from pylbr.record._blocks cimport (
    WALK_BRANCHES, WIRE_DONE, WIRE_FREE, WIRE_LIVE, WIRE_MAGIC, WIRE_PAD, WIRE_PAYLOAD,
    WIRE_SAMPLE, WIRE_WINDOW_WORDS, block_walk, walk_word, wire_block, wire_header, wire_message,
    wire_slot,
)
from pylbr.sister.facility cimport BranchFacility

cdef extern from *:
    """
    #define WIRE_LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
    #define WIRE_STORE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELEASE)
    """
    uint32_t load_32 "WIRE_LOAD"(uint32_t) noexcept nogil
    uint64_t load_64 "WIRE_LOAD"(uint64_t) noexcept nogil
    void store_32 "WIRE_STORE"(uint32_t, uint32_t) noexcept nogil
    void store_64 "WIRE_STORE"(uint64_t, uint64_t) noexcept nogil


@cython.final
cdef class Drain:
    """The reader's end of a `Wire`.

    Parameters
    ----------
    memory : writable buffer
        As `Wire` has laid it out.
    state : LbrState or pylbr.sister.facility.BranchFacility
        The facility that a sample's window goes through; its control decides what is recorded.
    timed : bool
        Fill in cycles from the cost model.
    capacity : int
        Samples that `samples` holds at most between two calls of `take`.
    system : bool
        The windows are a system's, not a program's: what lies before an interrupt, an exception, or
        another step that nothing explains, is left out of them.

    Attributes
    ----------
    gaps : int
        Steps in samples' windows that nothing explains.
    damaged : int
        Messages and words that make no sense.
    cut : int
        Stacks of a system that are shorter for such a step.
    """

    cdef unsigned char[::1] memory
    cdef char* base
    cdef wire_header layout
    cdef LbrState facility
    cdef BranchFacility sister  # in its place, of a program for another architecture
    cdef uint32_t depth
    cdef block_walk walk
    cdef lbr_branch* branches
    cdef readonly uint64_t gaps, damaged, cut
    cdef const uint64_t[::1] places
    cdef Py_ssize_t capacity, count
    cdef readonly dict columns
    cdef object room
    cdef uint32_t window[WIRE_WINDOW_WORDS]
    cdef uint64_t[::1] ip, time, period
    cdef int32_t[::1] pid, tid
    cdef uint32_t[::1] cpu, nr
    cdef unsigned char[:, ::1] entries
    cdef uint8_t[:, ::1] classes

    def __cinit__(self, memory, state, bint timed=False, Py_ssize_t capacity=4096,
                  bint system=False):
        self.memory = memory
        if len(self.memory) < <Py_ssize_t> sizeof(wire_header):
            raise ValueError("memory: no header")
        self.base = <char*> &self.memory[0]
        memcpy(&self.layout, self.base, sizeof(wire_header))
        if self.layout.magic != WIRE_MAGIC or self.layout.size > <uint64_t> len(self.memory):
            raise ValueError("memory: not as Wire makes it")
        if isinstance(state, BranchFacility):
            self.sister = state
        else:
            self.facility = state
        self.depth, self.capacity = state.depth, capacity
        self.room = np.empty(WALK_BRANCHES * WIRE_WINDOW_WORDS * sizeof(lbr_branch), np.uint8)
        cdef unsigned char[::1] room = self.room
        self.branches = <lbr_branch*> &room[0]
        memset(&self.walk, 0, sizeof(block_walk))
        self.walk.blocks = <const wire_block*> (self.base + self.layout.blocks_at)
        self.walk.lengths = <const uint8_t*> (self.base + self.layout.lengths_at)
        self.walk.timed, self.walk.system = timed, system
        self.renew()

    cdef renew(self):
        n, depth = self.capacity, self.depth
        self.columns = {
            name: np.zeros(n, kind) for name, kind in (
                ("ip", "u8"), ("time", "u8"), ("period", "u8"), ("pid", "i4"), ("tid", "i4"),
                ("cpu", "u4"), ("nr", "u4"),
            )
        }
        self.columns["entries"] = np.zeros((n, depth), ENTRY_DTYPE)
        self.columns["classes"] = np.zeros((n, depth), "u1")
        columns = self.columns
        self.ip, self.time, self.period = columns["ip"], columns["time"], columns["period"]
        self.pid, self.tid = columns["pid"], columns["tid"]
        self.cpu, self.nr = columns["cpu"], columns["nr"]
        self.entries = columns["entries"].view(np.uint8)
        self.classes = columns["classes"]
        self.count = 0

    def take(self):
        """Samples since the last call.

        Returns
        -------
        dict of str to ndarray
            Columns of `pylbr.perf.batch.SampleBatch`, shape (n,); `entries` and `classes`
            of shape (n, depth), newest first.
        """
        columns = {name: array[:self.count] for name, array in self.columns.items()}
        self.renew()
        return columns

    def gates(self, places):
        """Where interrupts and exceptions enter the system from now on: u8, ascending."""
        self.places = np.ascontiguousarray(places, np.uint64)
        self.walk.gate_count = len(self.places)
        self.walk.gates = &self.places[0] if len(self.places) else NULL

    def slots(self):
        """Slots in use: list of (number, state, pid, tid, parent, started)."""
        cdef uint32_t i, used = self._used()
        cdef wire_slot* slot
        cdef list result = []
        for i in range(used):
            slot = self._slot(i)
            state = load_32(slot.state)
            if state == WIRE_LIVE or state == WIRE_DONE:
                result.append(
                    (i, state == WIRE_DONE, slot.pid, slot.tid, slot.parent, slot.started)
                )
        return result

    def free(self, uint32_t number):
        """Make a slot ready for another thread; its memory must be zero."""
        if number >= self.layout.slots:
            raise ValueError(f"slot {number} of {self.layout.slots}")
        cdef wire_slot* slot = self._slot(number)
        slot.written = slot.read = slot.chunks_written = slot.chunks_read = 0
        store_32(slot.state, WIRE_FREE)

    def poll(self, uint32_t number, int32_t shift=0):
        """Read the messages of a slot; `shift` is added to pid and tid of its samples.

        Returns
        -------
        messages : list of (type, time, bytes)
            All but the samples, in order.
        complete : bool
            False if samples have filled the buffer; `take` them and call again.
        """
        cdef wire_slot* slot = self._slot(number)
        cdef char* ring = (
            self.base + self.layout.messages_at + <uint64_t> number * self.layout.message_bytes)
        cdef uint64_t read = slot.read, written = load_64(slot.written)
        cdef uint32_t at, mask = self.layout.message_bytes - 1
        cdef wire_message head
        cdef list messages = []
        if written - read > self.layout.message_bytes:
            self.damaged += 1
            read = written
        while read < written:
            at = <uint32_t> (read & mask)
            memcpy(&head, ring + at, min(sizeof(wire_message), mask + 1 - at))
            if head.size < 8 or head.size & 7 or head.size > mask + 1 - at or (
                    written - read < head.size or (head.type != WIRE_PAD and (
                        head.size < sizeof(wire_message)
                        or head.bytes > head.size - sizeof(wire_message)))):
                self.damaged += 1
                read = written
                break
            if head.type == WIRE_SAMPLE:
                if self.count == self.capacity:
                    break
                self._sample(slot, &head, shift, <uint32_t*> (ring + at + sizeof(wire_message)))
            elif head.type != WIRE_PAD:
                body = ring + at + sizeof(wire_message)
                messages.append((head.type, head.time, body[:head.bytes]))
            read += head.size
        store_64(slot.read, read)
        return messages, read >= written

    def chunk(self, uint32_t number, bint unfinished=False):
        """The next full chunk of a slot's ring, or what there is of one.

        Returns
        -------
        ndarray of u4, or None when there is nothing
            A copy; the ring's words are zeroed and may be written again.
        """
        cdef wire_slot* slot = self._slot(number)
        cdef uint32_t words = self.layout.chunk_words
        cdef uint64_t chunks = self.layout.ring_words // words, read = slot.chunks_read
        cdef uint64_t written = load_64(slot.chunks_written)
        cdef char* ring
        if written > read and written - read > chunks:
            self.damaged += 1
            store_64(slot.chunks_read, written)
            return None
        if written <= read and not unfinished:
            return None
        ring = (self.base + self.layout.rings_at
                + (<uint64_t> number * self.layout.ring_words + read % chunks * words) * 4)
        result = np.empty(words, np.uint32)
        cdef uint32_t[::1] to = result
        with nogil:
            memcpy(&to[0], ring, words * 4)
            memset(ring, 0, words * 4)
        if load_64(slot.chunks_written) > read:
            store_64(slot.chunks_read, read + 1)
            return result
        empty = np.flatnonzero(result == 0)
        result = result[:empty[0]] if len(empty) else result
        return result if len(result) else None

    cdef wire_slot* _slot(self, uint32_t number) noexcept nogil:
        return <wire_slot*> (self.base + self.layout.slots_at) + number

    cdef uint32_t _used(self) noexcept nogil:
        return min(load_32((<wire_header*> self.base).slots_used), self.layout.slots)

    cdef void _sample(self, wire_slot* slot, const wire_message* head, int32_t shift,
                      const uint32_t* body) noexcept nogil:
        """Send a window through the facility and read its records into the next row."""
        cdef const uint32_t* words = &self.window[0]
        cdef Py_ssize_t i, n = 0, row = self.count
        cdef Py_ssize_t count = (<Py_ssize_t> head.bytes - 8) // 4
        cdef int got
        cdef bint cut = False
        cdef uint64_t period, gaps
        cdef lbr_entry* entries = <lbr_entry*> &self.entries[row, 0]
        if count < 1 or count > WIRE_WINDOW_WORDS:
            self.damaged += 1
            return
        # A copy: the program may write to the memory between a check and the use.
        memcpy(&self.window[0], body + 2, count * 4)
        if words[count - 1] >= WIRE_PAYLOAD:
            self.damaged += 1
            return
        self.walk.block_count = min(
            load_32((<wire_header*> self.base).next_block), self.layout.blocks)
        self.walk.length_bytes = self.layout.length_bytes
        self.walk.previous = self.walk.instructions = self.walk.event = 0
        self.walk.cycles = self.walk.payload = self.walk.payload_bits = self.walk.gaps = 0
        for i in range(count):
            gaps = self.walk.gaps
            got = walk_word(&self.walk, words[i], self.branches + n)
            if got < 0:
                self.damaged += 1
                return
            n += got
            if self.walk.system and (self.walk.gaps != gaps or self._entered(n, got)):
                n, cut = self._restart(n, self.walk.gaps == gaps), True
        if not self.walk.system:
            self.gaps += self.walk.gaps
        if self.sister is not None:
            self.sister.forget()
            self.sister.take(self.branches, <size_t> n)
            self.sister.give(entries)
        else:
            lbr_clear(self.facility.state)
            lbr_record_batch(self.facility.state, self.branches, n)
            lbr_read_records(self.facility.state, entries)
        memcpy(&period, body, 8)
        self.ip[row] = self.walk.blocks[words[count - 1]].start
        self.time[row], self.period[row] = head.time, period
        self.pid[row], self.tid[row] = <int32_t> slot.pid + shift, <int32_t> slot.tid + shift
        self.cpu[row] = head.cpu
        if self.sister is not None:
            self.nr[row] = self._told_classes(entries, row)
        else:
            self.nr[row] = self._classes(entries, n, row)
        self.cut += cut and self.nr[row] < self.depth
        self.count += 1

    cdef bint _entered(self, Py_ssize_t n, int got) noexcept nogil:
        """Whether the newest branch comes from code whose branches are left out: what was recorded
        before lies on the other side of it."""
        cdef const lbr_branch* newest = &self.branches[n - 1]
        if got == 0 or newest.cpl_from == newest.cpl_to:
            return False
        return self.layout.halves == (2 if newest.cpl_to == 0 else 1)

    cdef Py_ssize_t _restart(self, Py_ssize_t n, bint keep) noexcept nogil:
        """Leave out all branches, or all but the newest; how many there are then."""
        if keep:
            self.branches[0] = self.branches[n - 1]
        return keep

    cdef uint32_t _classes(self, const lbr_entry* entries, Py_ssize_t n,
                           Py_ssize_t row) noexcept nogil:
        """Classes of the records, found among the window's branches; returns their number."""
        cdef uint32_t k = 0, depth = self.depth
        cdef const lbr_branch* branch
        while n > 0 and k < depth and (entries[k].from_ or entries[k].to):
            n -= 1
            branch = &self.branches[n]
            if entries[k].to == branch.to and (
                    entries[k].from_ == branch.from_ or entries[k].from_ == <uint64_t> -1):
                self.classes[row, k] = branch.cls
                k += 1
        return k

    cdef uint32_t _told_classes(self, const lbr_entry* entries, Py_ssize_t row) noexcept nogil:
        """Classes of the records, which contain them; returns their number."""
        cdef uint32_t k = 0
        while k < self.depth and (entries[k].from_ or entries[k].to):
            self.classes[row, k] = (entries[k].info >> INFO_CLASS_SHIFT) & 15
            k += 1
        return k
