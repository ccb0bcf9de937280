"""Breadth-first search of all states that a configuration can reach.

States are kept as canonical bytes in the order of discovery, which is also the queue; an
open-addressing table of their numbers finds the known ones.  States are compared as a whole,
never by hash alone.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from pylbr.arbitration.microsteps cimport Policy
from pylbr.host.perf cimport CALL_STACK, PEBS
from pylbr.verify.codec cimport MAX_STATE, decode, encode
from pylbr.verify.world cimport (
    F_HOST_FREEZE, F_PEBS, F_STACK, MAX_ACTIONS, MAX_KINDS, PROPERTIES, Action, apply, enabled,
    world_init,
)

from pylbr.errors import ConfigurationError


cdef class Model:
    """Model(policy, config, cpus=1, guests=2, features=0, kinds=(), events=1, guest_depth=0)\n--\n
    A configuration: policy, processors, guests, and what can happen.

    Parameters
    ----------
    policy : Policy
    config : lbrcore.config.LbrConfig
        Features of every processor; a small depth keeps the search small.
    cpus, guests : int
    features : int
        `Feature` bits.
    kinds : sequence of int
        Events that perf may open, as flags.
    events : int
        Number of them that may be open on a CPU at once, 1 or 2.
    guest_depth : int
        Depth of the guests' stacks, in entries; 0: the largest of the processor.
    """

    def __init__(self, Policy policy, config, int cpus=1, int guests=2, int features=0,
                 kinds=(), int events=1, int guest_depth=0):
        if not 1 <= cpus <= 2 or not 1 <= guests <= 4 or len(kinds) > MAX_KINDS:
            raise ConfigurationError(
                f"a model has 1 or 2 CPUs, 1 to 4 guests and at most {MAX_KINDS} kinds of "
                f"events, not {cpus}, {guests} and {len(kinds)}")
        self.policy = policy
        if not 1 <= events <= 2:
            raise ConfigurationError(f"a CPU has 1 or 2 events open at once, not {events}")
        if guest_depth and (guest_depth not in config.depths or not policy.any_depth):
            raise ConfigurationError(
                f"guest depth {guest_depth}: policy {policy.name} on this processor offers "
                f"{config.depths if policy.any_depth else config.max_depth}")
        for kind in kinds:
            features |= (F_PEBS if kind & PEBS else 0) | (F_STACK if kind & CALL_STACK else 0)
        self.options.features = features
        self.options.events = <uint8_t> events
        self.options.kinds = <uint8_t> len(kinds)
        for i, kind in enumerate(kinds):
            self.options.kind[i] = kind
        world_init(&self.initial, policy, config, cpus, guests, guest_depth)
        self.initial.system.features = features
        for cpu in range(cpus):
            self.initial.system.cpu[cpu].perf.freezes = (features & F_HOST_FREEZE) != 0


cdef uint64_t _hash(const uint8_t* state, size_t size) noexcept nogil:
    cdef uint64_t h = 0x9E3779B97F4A7C15, word
    cdef size_t i
    for i in range(0, size, 8):
        memcpy(&word, state + i, 8)
        h = (h ^ word) * <uint64_t> 0xFF51AFD7ED558CCD
        h ^= h >> 32
    return h


cdef class Explorer:
    """Explorer(model, canonical=True)\n--\n
    A breadth-first search of the states of a model.

    Parameters
    ----------
    model : Model
    canonical : bool
        Treat states that differ in the numbering of guests or in serial numbers as one.

    Attributes
    ----------
    model : Model
    states, transitions : int
        Number of those found so far.
    depth : int
        Length of the longest of the shortest paths so far, in actions.
    complete : bool
        No new state is left: what was not found cannot happen.
    failed : int
        Properties that were broken, as bits.
    """

    def __cinit__(self, Model model not None, bint canonical=True):
        cdef uint8_t first[MAX_STATE]
        self.model = model
        self.canonical = canonical
        self.world = model.initial
        memset(first, 0, sizeof(first))
        self.width = (encode(&self.world, model.policy, first, canonical) + 7) & ~7
        self.slots = 1 << 16
        self.table = <uint32_t*> calloc(self.slots, sizeof(uint32_t))
        if self.table == NULL or self._grow(1 << 14):
            raise MemoryError
        self._insert(first, 0, Action(0, 0, 0))
        self.level_end = self.states

    def __dealloc__(self):
        free(self.table)
        free(self.bytes_)
        free(self.parent)
        free(self.action)

    cdef int _grow(self, size_t capacity) noexcept nogil:
        cdef void* p = realloc(self.bytes_, capacity * self.width)
        if p == NULL:
            return -1
        self.bytes_ = <uint8_t*> p
        p = realloc(self.parent, capacity * sizeof(uint32_t))
        if p == NULL:
            return -1
        self.parent = <uint32_t*> p
        p = realloc(self.action, capacity * sizeof(Action))
        if p == NULL:
            return -1
        self.action = <Action*> p
        self.capacity = capacity
        return 0

    cdef int _rehash(self) noexcept nogil:
        cdef size_t slots = self.slots * 2, slot, i
        cdef uint32_t* table = <uint32_t*> calloc(slots, sizeof(uint32_t))
        if table == NULL:
            return -1
        for i in range(self.states):
            slot = _hash(self.bytes_ + i * self.width, self.width) & (slots - 1)
            while table[slot]:
                slot = (slot + 1) & (slots - 1)
            table[slot] = <uint32_t> i + 1
        free(self.table)
        self.table = table
        self.slots = slots
        return 0

    cdef int _insert(self, const uint8_t* state, uint32_t parent, Action action) noexcept nogil:
        """1 if the state is new, 0 if known, -1 without memory."""
        cdef size_t slot = _hash(state, self.width) & (self.slots - 1)
        while self.table[slot]:
            if not memcmp(self.bytes_ + (self.table[slot] - 1) * self.width, state, self.width):
                return 0
            slot = (slot + 1) & (self.slots - 1)
        if self.states == self.capacity and self._grow(self.capacity * 2):
            return -1
        memcpy(self.bytes_ + self.states * self.width, state, self.width)
        self.parent[self.states] = parent
        self.action[self.states] = action
        self.states += 1
        self.table[slot] = <uint32_t> self.states
        if self.states * 2 > self.slots:
            return -1 if self._rehash() else 1
        return 1

    cdef void _note(self, uint32_t number, Action action, uint32_t failed) noexcept nogil:
        """Keep the first, that is a shortest, way to each failure."""
        cdef int p
        for p in range(PROPERTIES):
            if (failed & ~self.failed) >> p & 1:
                self.bad_state[p] = number
                self.bad_action[p] = action
        self.failed |= failed

    cdef int _expand(self, uint32_t number) noexcept nogil:
        """All successors of one state; -1 without memory."""
        cdef Action actions[MAX_ACTIONS]
        cdef uint8_t state[MAX_STATE]
        cdef int n, i
        cdef uint32_t failed
        decode(&self.world, self.model.policy, self.bytes_ + number * self.width)
        n = enabled(&self.world, self.model.policy, &self.model.options, actions)
        for i in range(n):
            if i:
                decode(&self.world, self.model.policy, self.bytes_ + number * self.width)
            failed = apply(&self.world, self.model.policy, &self.model.options, actions[i])
            self.transitions += 1
            if failed:
                self._note(number, actions[i], failed)
                if failed & self.prune:
                    continue
            memset(state + self.width - 8, 0, 8)
            encode(&self.world, self.model.policy, state, self.canonical)
            if self._insert(state, number, actions[i]) < 0:
                return -1
        return 0

    def run(self, size_t budget=1 << 20, unsigned int prune=0xFFFFFFFF, unsigned int stop=0):
        """Expand up to `budget` states.

        Parameters
        ----------
        budget : int
            Number of states to expand.
        prune : int
            Properties, as bits: the search does not continue after a step that breaks one.
        stop : int
            Properties whose first failure ends the search.

        Returns
        -------
        bool
            True if there is nothing more to do.

        Raises
        ------
        ConfigurationError
            A hook of a policy in Python failed.
        MemoryError
            There is no room for a further state.
        """
        cdef int result = 0
        cdef size_t end = self.next + budget
        self.prune = prune
        with nogil:
            while self.next < self.states and self.next < end and not self.failed & stop \
                    and not self.model.policy.stopped:
                if self.next == self.level_end:
                    self.depth += 1
                    self.level_end = self.states
                result = self._expand(<uint32_t> self.next)
                if result:
                    break
                self.next += 1
        self.model.policy.check()
        if result < 0:
            raise MemoryError(f"no room for more than {self.states} states")
        self.complete = self.next == self.states
        return self.complete or bool(self.failed & stop)

    @property
    def memory(self):
        """What the states take, in bytes: their bytes, how each was reached, the table."""
        return int(self.capacity * (self.width + sizeof(uint32_t) + sizeof(Action))
                   + self.slots * sizeof(uint32_t))

    def path(self, int property):
        """Return a shortest way to break a property.

        Parameters
        ----------
        property : int
            Its number.

        Returns
        -------
        (list of bytes, (int, int, int))
            Canonical states from the first to the one before the failure, and the action that
            breaks it: (kind, cpu, argument).

        Raises
        ------
        ValueError
            The property has not been broken.
        """
        cdef uint32_t number = self.bad_state[property]
        cdef Action last = self.bad_action[property]
        if not self.failed >> property & 1:
            raise ValueError(f"property {property} has not been broken")
        states = []
        while True:
            states.append(<bytes> self.bytes_[number * self.width:(number + 1) * self.width])
            if number == 0:
                break
            number = self.parent[number]
        states.reverse()
        return states, (last.kind, last.cpu, last.arg)
