"""One LBR facility: recording, control, and reads and writes of what it holds.

The record path itself is in ``lbr.pxd``, to be inlined.  Behaviour: SDM vol. 3, chapter on last
branch records; vol. 4, table 2-2.  Where the manual is silent, the choice made is named in
``lbrcore.choices``.  The plain-Python twin is ``lbrcore.reference``.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from lbrcore.batch cimport lbr_record_batch
from lbrcore.buffers cimport BRANCH_FORMAT, acquire, several, truth, unsigned
from lbrcore.columns cimport BLOCK, Columns
from lbrcore.control cimport (
    lbr_control_changed, lbr_set_enable, lbr_set_event_mask, lbr_set_frozen, lbr_write_ctl,
    lbr_write_depth, lbr_write_tos,
)
from lbrcore.config import LbrConfig
from lbrcore.dtypes import ENTRY_DTYPE, BranchClass, BranchFlag
from lbrcore.errors import Fault
from lbrcore.listing import as_html, as_text

import numpy as np

# ---------------------------------------------------------------- configuration

cdef uint32_t lbr_max_depth(const lbr_config* config) noexcept nogil:
    cdef uint32_t depth = 0, n
    if config.depth:
        return config.depth
    for n in range(8):
        if (config.depth_bitmap >> n) & 1:
            depth = 8 * (n + 1)
    return depth


cdef bint lbr_config_valid(const lbr_config* config) noexcept nogil:
    cdef uint32_t depth = lbr_max_depth(config)
    if depth == 0 or depth > LBR_MAX_DEPTH or not 32 <= config.linear_width <= 64:
        return False
    if config.event_counters > 15:
        return False
    if config.flavour == LBR_LEGACY:
        return (depth & (depth - 1)) == 0 and config.ctl_mask <= LBR_SELECT_ALL
    return config.flavour == LBR_ARCHITECTURAL and (
        config.ctl_mask & ~<uint64_t> LBR_CTL_ALL) == 0


# ---------------------------------------------------------------- life

cdef lbr_state* lbr_create(const lbr_config* config) noexcept nogil:
    cdef lbr_state* state
    if not lbr_config_valid(config):
        return NULL
    state = <lbr_state*> calloc(1, sizeof(lbr_state))
    if state != NULL:
        state.config = config[0]
        state.event_mask = config.event_counters
        lbr_reset(state)
    return state


cdef int lbr_open(lbr_state** state, const lbr_config* config, size_t config_size,
                  uint32_t abi_version) noexcept nogil:
    """`lbr_create` with a reason, for programs compiled with some version of the header."""
    state[0] = NULL
    if abi_version != LBRCORE_ABI_VERSION:
        return LBR_EABI
    if config_size != sizeof(lbr_config):
        return LBR_ESIZE
    if not lbr_config_valid(config):
        return LBR_ECONFIG
    state[0] = lbr_create(config)
    return LBR_ENOMEM if state[0] == NULL else LBR_OK


cdef void lbr_destroy(lbr_state* state) noexcept nogil:
    free(state)


cdef void lbr_copy(lbr_state* target, const lbr_state* source) noexcept nogil:
    target[0] = source[0]


cdef void lbr_reset(lbr_state* state) noexcept nogil:
    """Power-up values: all 0, the largest depth."""
    cdef lbr_config config = state.config
    memset(state, 0, sizeof(lbr_state))
    state.config = config
    state.event_mask = config.event_counters
    state.depth = lbr_max_depth(&config)
    lbr_control_changed(state)


cdef const char* lbr_strerror(int result) noexcept nogil:
    """What an `lbr_result` stands for, in one line."""
    if result == LBR_OK:
        return "no error"
    if result == LBR_EINVAL:
        return "an argument is out of its range"
    if result == LBR_GP:
        return "the access faults with #GP(0)"
    if result == LBR_ENOMEM:
        return "memory ran out"
    if result == LBR_ESHORT:
        return "the buffer ends before the area does"
    if result == LBR_ENULL:
        return "a pointer is NULL"
    if result == LBR_EABI:
        return "the program was compiled with another ABI version of lbrcore.h; compile it again"
    if result == LBR_ESIZE:
        return "a structure has another size than in this library; compile the program again"
    if result == LBR_ECONFIG:
        return "no processor has such a configuration"
    if result == LBR_EMODEL:
        return "no model has that name"
    if result == LBR_ESTATE:
        return "the saved state is damaged, or of another model"
    if result == LBR_ENOTSUP:
        return "the model lacks that, or it cannot happen now"
    if result == LBR_EIO:
        return "the file could not be written"
    return "not a result of lbrcore"


# ---------------------------------------------------------------- recording

cdef int lbr_record_rare(lbr_state* state, const lbr_branch* branch) noexcept nogil:
    """A branch that `lbr_record` does not take itself."""
    if state.quick == QUICK_CALL_STACK and lbr_in_quick_range(branch):
        lbr_record_stack(state, branch)
        return LBR_OK
    # A constant mode lets the compiler drop what the case does not need.
    if state.mode == MODE_CALL_STACK | MODE_TIMED:
        lbr_record_in(state, branch, MODE_CALL_STACK | MODE_TIMED)
    elif state.mode & ~<int> MODE_FILTERED == MODE_TIMED:
        lbr_record_in(state, branch, MODE_FILTERED | MODE_TIMED)
    elif state.mode != MODE_OFF:
        lbr_record_in(state, branch, state.mode)
    return LBR_OK


cdef int lbr_record_any(lbr_state* state, const lbr_branch* branch) noexcept nogil:
    """Record one branch, or LBR_EINVAL if a field is out of range."""
    return lbr_record_rare(state, branch) if lbr_check(branch) else LBR_EINVAL


# ---------------------------------------------------------------- records

cdef int lbr_read_entry(const lbr_state* state, uint32_t i, lbr_entry* entry) noexcept nogil:
    if i >= state.depth:
        return LBR_GP
    entry[0] = lbr_get(state, i)
    return LBR_OK


cdef int lbr_write_entry(lbr_state* state, uint32_t i, const lbr_entry* entry) noexcept nogil:
    if i >= state.depth:
        return LBR_GP
    lbr_slot(state, state.head - i)[0] = entry[0]
    return LBR_OK


cdef uint32_t lbr_read_records(const lbr_state* state, lbr_entry* entries) noexcept nogil:
    """All `depth` entries, newest first."""
    cdef uint32_t i
    for i in range(state.depth):
        entries[i] = lbr_get(state, i)
    return state.depth


cdef void lbr_read_ler(const lbr_state* state, lbr_entry* entry) noexcept nogil:
    entry.from_ = lbr_canonical(state, state.ler.from_)
    entry.to = lbr_canonical(state, state.ler.to)
    entry.info = state.ler.info


cdef void lbr_write_ler(lbr_state* state, const lbr_entry* entry) noexcept nogil:
    state.ler = entry[0]


# ---------------------------------------------------------------- Python

cdef lbr_config _config(object config) except *:
    """The C structure of a LbrConfig, which has checked its fields."""
    cdef lbr_config c
    memset(&c, 0, sizeof(c))
    if not isinstance(config, LbrConfig):
        raise TypeError(f"config: must be a LbrConfig, not {type(config).__name__}")
    c.flavour = config.flavour
    c.depth_bitmap = config.depth_bitmap
    c.depth = config.depth
    c.linear_width = config.linear_width
    c.event_counters = config.event_counters
    c.quirks = config.quirks
    c.ctl_mask = config.ctl_mask
    c.info_mask = config.info_mask
    return c


cdef lbr_entry _entry(object from_, object to, object info) except *:
    cdef lbr_entry entry
    entry.from_ = unsigned(from_, "from_", <uint64_t> -1)
    entry.to = unsigned(to, "to", <uint64_t> -1)
    entry.info = unsigned(info, "info", <uint64_t> -1)
    return entry


cdef int _out_of_range(const lbr_branch* branches, size_t count, size_t first=0) except -1:
    """Report which branch of a refused batch is out of range; `first` is the index of branch 0."""
    cdef size_t i
    for i in range(count):
        if branches[i].cls > 15:
            raise ValueError(f"branches[{first + i}]: class {branches[i].cls} is not a "
                             "BranchClass (0 to 15)")
        if branches[i].flags > 7:
            raise ValueError(f"branches[{first + i}]: flags {branches[i].flags:#x} has bits that "
                             "no BranchFlag names (7 is all of them)")
        if branches[i].cpl_from > 3 or branches[i].cpl_to > 3:
            raise ValueError(f"branches[{first + i}]: cpl_from {branches[i].cpl_from}, cpl_to "
                             f"{branches[i].cpl_to}: a privilege level is 0 to 3")
    return 0


cdef str _class_name(uint64_t info, uint64_t mask):
    """Class of a record as far as INFO has it; empty where no bit of INFO does."""
    cdef uint64_t code
    if (mask >> INFO_CLASS_SHIFT) & 15 == 15:
        return BranchClass((info >> INFO_CLASS_SHIFT) & 15).name
    if (mask >> INFO_TYPE_SHIFT) & 15 != 15:
        return ""
    code = (info >> INFO_TYPE_SHIFT) & 15
    if code & 8:
        return "OTHER_BRANCH"
    return BranchClass(code).name if code <= LBR_NEAR_RET else "reserved"


@cython.final
cdef class LbrState:
    """LbrState(config)\n--\n
    The LBR facility of one logical processor.

    Parameters
    ----------
    config : LbrConfig
        Features of the processor.

    Notes
    -----
    An instance is used by one thread at a time; batches release the GIL, so different
    instances run in parallel.  A call that raises leaves the state as it was.
    """

    def __cinit__(self, config):
        cdef lbr_config c = _config(config)
        self.state = lbr_create(&c)
        if self.state == NULL:
            raise MemoryError("LbrState: out of memory")

    def __dealloc__(self):
        if not self.borrowed:
            lbr_destroy(self.state)

    def __reduce__(self):
        raise TypeError("LbrState is not pickled; move it by pylbr's state codec or by XSAVES")

    # Recording

    def record(self, branches):
        """Record a batch: all of it, or nothing if a branch is out of range.

        Parameters
        ----------
        branches : buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first
            Read-only and memory-mapped arrays too; nothing is copied.

        Raises
        ------
        TypeError
            Not a buffer, or of another dtype.
        ValueError
            Strided, not one-dimensional, or a class, flag or CPL out of range.
        """
        cdef Py_buffer view
        cdef int result
        acquire(branches, &view, "branches", BRANCH_FORMAT, sizeof(lbr_branch),
                "lbrcore.BRANCH_DTYPE", False)
        try:
            with nogil:
                result = lbr_record_batch(
                    self.state, <const lbr_branch*> view.buf, <size_t> view.shape[0])
            if result != LBR_OK:
                _out_of_range(<const lbr_branch*> view.buf, <size_t> view.shape[0])
        finally:
            PyBuffer_Release(&view)

    def record_one(self, from_, to, cls, *, cycles=0, instructions=1, flags=0, cpl_from=3,
                   cpl_to=3, events=(0, 0, 0, 0)):
        """Record one branch; arguments as the fields of BRANCH_DTYPE."""
        cdef lbr_branch branch
        cdef int i
        branch.from_ = unsigned(from_, "from_", <uint64_t> -1)
        branch.to = unsigned(to, "to", <uint64_t> -1)
        branch.cls = <uint8_t> unsigned(cls, "cls", 15)
        branch.cycles = <uint32_t> unsigned(cycles, "cycles", 0xFFFFFFFF)
        branch.instructions = <uint32_t> unsigned(instructions, "instructions", 0xFFFFFFFF)
        branch.flags = <uint8_t> unsigned(flags, "flags", 7)
        branch.cpl_from = <uint8_t> unsigned(cpl_from, "cpl_from", 3)
        branch.cpl_to = <uint8_t> unsigned(cpl_to, "cpl_to", 3)
        counts = several(events, "events", 4)
        for i in range(4):
            branch.events[i] = <uint8_t> unsigned(counts[i], "events", 255)
        lbr_record(self.state, &branch)

    def record_columns(self, from_, to, cls, *, cycles=None, flags=None, cpl_from=3, cpl_to=3,
                       events=None):
        """Record a batch given as columns, each of shape (n,), C-contiguous, oldest first.

        Parameters
        ----------
        from_, to : buffer of uint64
        cls : buffer of uint8, `BranchClass`
        cycles : buffer of uint32, core cycles since the previous branch; 0 if left out
        flags : buffer of uint8, `BranchFlag`; 0 if left out
        cpl_from, cpl_to : buffer of uint8, or one level for all
        events : buffer of uint32, the counts of counters 0..3, one byte per counter from the lowest

        Raises
        ------
        TypeError, ValueError
            As `record`; also if the columns differ in length.
        """
        cdef Columns columns = Columns(from_, to, cls, cycles, flags, cpl_from, cpl_to, events)
        cdef lbr_state before = self.state[0]
        cdef int result = LBR_OK
        cdef size_t done = 0, n
        cdef lbr_branch block[BLOCK]
        with nogil:
            while done < columns.count:
                n = columns.gather(block, done)
                result = lbr_record_batch(self.state, block, n)
                if result != LBR_OK:
                    self.state[0] = before
                    break
                done += n
        if result != LBR_OK:
            _out_of_range(block, n, done)

    # Control

    @property
    def ctl(self):
        """IA32_LBR_CTL, or MSR_LBR_SELECT in the legacy flavour.

        Setting it raises `Fault` for bits that `LbrConfig.ctl_mask` does not hold.
        """
        return self.state.ctl

    @ctl.setter
    def ctl(self, value):
        cdef uint64_t ctl = unsigned(value, "ctl", <uint64_t> -1)
        if lbr_write_ctl(self.state, ctl) != LBR_OK:
            bits = ctl & ~self.state.config.ctl_mask
            raise Fault(f"ctl: bits {bits:#x} are reserved or not offered")

    @property
    def depth(self):
        """IA32_LBR_DEPTH.  Setting it, to the present value too, zeroes all records.

        CTL and LER stay.  Raises `Fault` for a depth that is not offered.
        """
        return self.state.depth

    @depth.setter
    def depth(self, value):
        cdef uint64_t depth = unsigned(value, "depth", <uint64_t> -1)
        if self.state.config.flavour != LBR_ARCHITECTURAL:
            raise AttributeError("depth: is fixed in the legacy flavour")
        if lbr_write_depth(self.state, depth) != LBR_OK:
            raise Fault(f"depth: {depth} is not offered; these are: {list(self.config.depths)}")

    @property
    def enable(self):
        """IA32_DEBUGCTL.LBR of the legacy flavour."""
        return bool(self.state.enable)

    @enable.setter
    def enable(self, value):
        if self.state.config.flavour != LBR_LEGACY:
            raise AttributeError("enable: is LBREn, bit 0 of ctl, in the architectural flavour")
        lbr_set_enable(self.state, truth(value, "enable"))

    @property
    def frozen(self):
        """IA32_PERF_GLOBAL_STATUS.LBR_FRZ: while set, nothing is recorded."""
        return bool(self.state.frozen)

    @frozen.setter
    def frozen(self, value):
        lbr_set_frozen(self.state, truth(value, "frozen"))

    @property
    def event_mask(self):
        """Counters whose events are logged (IA32_PERFEVTSELx[35]), one bit per counter."""
        return self.state.event_mask

    @event_mask.setter
    def event_mask(self, value):
        cdef uint64_t mask = unsigned(value, "event_mask", 15)
        if mask & ~<uint64_t> self.state.config.event_counters:
            refused = mask & ~<uint64_t> self.state.config.event_counters
            raise Fault(f"event_mask: counters {refused:#x} offer no event logging")
        lbr_set_event_mask(self.state, <int> mask)

    @property
    def tos(self):
        """MSR_LASTBRANCH_TOS of the legacy flavour: physical index of the newest record.

        Setting it leaves the physical registers as they are.
        """
        if self.state.config.flavour != LBR_LEGACY:
            raise AttributeError("tos: the architectural flavour has none; entry 0 is the newest")
        return self.state.head & (self.state.depth - 1)

    @tos.setter
    def tos(self, value):
        cdef uint64_t tos = unsigned(value, "tos", 0xFFFFFFFF)
        if self.state.config.flavour != LBR_LEGACY:
            raise AttributeError("tos: the architectural flavour has none; entry 0 is the newest")
        if lbr_write_tos(self.state, <uint32_t> tos) != LBR_OK:
            raise Fault(f"tos: must be below the depth, {self.state.depth}, not {tos}")

    @property
    def cycles(self):
        """Cycles since the last record, at most FFFFH; None before the first one."""
        return min(self.state.cycles, <uint64_t> CYC_CNT_MAX) if self.state.cycles_valid else None

    @property
    def active(self):
        """Recording: enabled and not frozen."""
        return bool(self.state.active)

    # Records

    def records(self):
        """All entries as an array of ENTRY_DTYPE, shape (depth,), newest first; a copy."""
        cdef lbr_entry entries[32]
        cdef uint32_t n = lbr_read_records(self.state, entries)
        return np.frombuffer(
            bytearray(PyBytes_FromStringAndSize(<char*> entries, n * sizeof(lbr_entry))),
            ENTRY_DTYPE)

    def read_entry(self, i):
        """FROM, TO and INFO of entry `i`, 0 being the newest; `Fault` for i >= depth."""
        cdef lbr_entry entry
        if lbr_read_entry(self.state, <uint32_t> unsigned(i, "i", 0xFFFFFFFF), &entry) != LBR_OK:
            raise Fault(f"i: entry {i} does not exist at depth {self.state.depth}")
        return entry.from_, entry.to, entry.info

    def write_entry(self, i, from_, to, info):
        """Write entry `i`; addresses are read back sign-extended from MAXLINADDR."""
        cdef lbr_entry entry = _entry(from_, to, info)
        if lbr_write_entry(self.state, <uint32_t> unsigned(i, "i", 0xFFFFFFFF), &entry) != LBR_OK:
            raise Fault(f"i: entry {i} does not exist at depth {self.state.depth}")

    @property
    def ler(self):
        """IA32_LER_FROM_IP, _TO_IP, _INFO: the last record before an exception or interrupt."""
        cdef lbr_entry entry
        lbr_read_ler(self.state, &entry)
        return entry.from_, entry.to, entry.info

    @ler.setter
    def ler(self, value):
        cdef lbr_entry entry
        from_, to, info = several(value, "ler", 3)
        entry.from_ = unsigned(from_, "ler[0]", <uint64_t> -1)
        entry.to = unsigned(to, "ler[1]", <uint64_t> -1)
        entry.info = unsigned(info, "ler[2]", <uint64_t> -1)
        lbr_write_ler(self.state, &entry)

    # As text

    def _listed(self):
        """What it is, and (number, from, to, class, cycles, flags) of its entries but the empty
        ones, newest first."""
        cdef lbr_entry entries[32]
        cdef uint32_t i, n = lbr_read_records(self.state, entries)
        cdef uint64_t mask = self.state.config.info_mask, timed
        rows = []
        for i in range(n):
            if not entries[i].from_ | entries[i].to:
                continue
            timed = (entries[i].info | ~mask) & LBR_INFO_CYC_CNT_VALID
            rows.append((
                str(i), f"{entries[i].from_:#x}", f"{entries[i].to:#x}",
                _class_name(entries[i].info, mask),
                str(entries[i].info & CYC_CNT_MAX) if timed and mask & CYC_CNT_MAX else "",
                ", ".join(flag.name for flag in BranchFlag if entries[i].info >> 61 & flag)))
        legacy = self.state.config.flavour == LBR_LEGACY
        head = (f"LbrState: {'legacy' if legacy else 'architectural'}, depth {n}, "
                f"{'LBR_SELECT' if legacy else 'IA32_LBR_CTL'} {self.ctl:#x}"
                f"{', frozen' if self.frozen else '' if self.active else ', not recording'}; "
                f"{len(rows) or 'no'} {'entry' if len(rows) == 1 else 'entries'}")
        return head, rows

    def __repr__(self):
        return as_text(*self._listed())

    def _repr_html_(self):
        return as_html(*self._listed())

    # Life

    def reset(self):
        """Power-up values: all 0, the largest depth."""
        lbr_reset(self.state)

    def clear(self):
        """Zero all records; everything else stays."""
        lbr_clear(self.state)

    def copy(self):
        """An independent state with the same contents."""
        cdef LbrState other = LbrState.__new__(LbrState, self.config)
        lbr_copy(other.state, self.state)
        return other

    @property
    def config(self):
        """Features of the processor."""
        cdef const lbr_config* c = &self.state.config
        return LbrConfig(
            flavour=c.flavour, depth_bitmap=c.depth_bitmap, depth=c.depth,
            linear_width=c.linear_width, event_counters=c.event_counters, quirks=c.quirks,
            ctl_mask=c.ctl_mask, info_mask=c.info_mask)


cdef LbrState lbr_view(lbr_state* state, object owner):
    cdef LbrState view = LbrState(LbrConfig())
    lbr_destroy(view.state)
    view.state, view.borrowed, view.owner = state, True, owner
    return view
