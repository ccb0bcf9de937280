"""Executed blocks in, branches out.

A translating emulator reports which block it enters; that the block before it ended in a branch,
which one and whether it was taken follows from the two.  `classify` is asked once a block.
The plain-Python twin is ``pylbr.x86.blocks_reference``.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from lbrcore.buffers cimport unsigned
from lbrcore.lbr cimport (
    LBR_COND, LBR_NEAR_RET, LBR_NOT_TAKEN, LBR_RECORDABLE, LBR_SOFT_INT, LBR_SYSCALL,
    LBR_TSX_ABORT, LBR_ZERO_CALL, LbrState, lbr_branch, lbr_record, lbr_set_meta,
)
from pylbr.x86.block_flags cimport BLOCK_FLUSH, BLOCK_REP, NO_BRANCH
from pylbr.x86.compiled_facts cimport block_facts, count_instructions, decode_block
from pylbr.x86.guest_code cimport LONGEST_BLOCK, code_read, context_save, guest_code
from pylbr.x86.tracker cimport (
    FIRST_PLACES, LONGEST, NEVER, block_at, block_info, block_tracker, condition_holds, cut_short,
    flush_blocks, is_known, is_same_code, keep_code, new_place, register_read, register_value,
    remember, set_aside, set_facts, set_look,
)

from lbrcore.dtypes import BRANCH_DTYPE

import numpy as np

# ---------------------------------------------------------------- one transition

cdef inline void _emit(
    block_tracker* t, uint64_t from_, uint64_t to, uint8_t cls, uint8_t cpl_from
) noexcept nogil:
    cdef lbr_branch branch
    branch.from_ = from_
    branch.to = to
    branch.cycles = branch.instructions = <uint32_t> (t.instructions - t.marked)
    lbr_set_meta(&branch, cls, 0, cpl_from, t.cpl)
    t.marked = t.instructions
    if cython.likely(t.lbr != NULL):
        lbr_record(t.lbr, &branch)
    if cython.unlikely(t.logging):
        _log(t, &branch)


cdef void _log(block_tracker* t, const lbr_branch* branch) noexcept nogil:
    if t.log_used == t.log_size:
        _drain(t)
    t.log[t.log_used] = branch[0]
    t.log_used += 1


cdef void _far(block_tracker* t, uint64_t from_, uint64_t to, uint8_t cls) noexcept nogil:
    """A branch that may change the privilege level."""
    cdef uint8_t cpl = t.cpl
    if t.read != NULL:
        t.cpl = register_value(t, t.cs) & 3
    t.taken += (LBR_RECORDABLE >> cls) & 1
    _emit(t, from_, to, cls, cpl)


cdef inline void _leave(
    block_tracker* t, const block_info* old, uint64_t to, bint cut
) noexcept nogil:
    """The block `old` was executed and execution went on at `to`."""
    cdef uint8_t cls = old.cls
    if cython.unlikely(cut):
        if to != old.start:
            t.instructions += _executed(t, old.start, to)
        return
    t.instructions += old.instructions
    if cls <= LBR_NEAR_RET:
        if cls == LBR_COND and to == old.end and (
            old.target != to or not condition_holds(t, old.condition)
        ):
            t.not_taken += 1
            if cython.unlikely(t.logging):
                _emit(t, old.start + old.last, to, LBR_NOT_TAKEN, t.cpl)
        elif cython.unlikely(old.direct and to != old.target):
            t.unexplained += 1
        else:
            t.taken += 1
            _emit(t, old.start + old.last, to, cls, t.cpl)
    elif cls == NO_BRANCH or cls == LBR_ZERO_CALL:
        if old.flags & BLOCK_REP and to == old.start + old.last:
            t.instructions -= 1  # one more round; it retires with the last
        elif to != (old.target if cls == LBR_ZERO_CALL else old.end):
            t.unexplained += 1
    elif to == old.end and (cls == LBR_SYSCALL or cls == LBR_SOFT_INT):
        pass  # the emulator did the guest kernel's work
    else:
        _far(t, old.start + old.last, to, cls)


cdef inline void _finish_event(block_tracker* t, uint64_t to) noexcept nogil:
    """The handler of an exception or interrupt is entered."""
    cdef uint8_t cls = <uint8_t> t.event_class
    t.event_class = -1
    if t.event_served and to - t.event_at <= LONGEST:
        return  # the emulator served it by itself
    if cls == NO_BRANCH:
        if t.read != NULL:
            t.cpl = register_value(t, t.cs) & 3
    else:
        _far(t, t.event_from, to, cls)


cdef void blocks_enter(
    void* engine, uint64_t address, uint32_t size, void* tracker
) noexcept nogil:
    """Block hook: the emulator is about to execute the `size` bytes at `address`.

    A transition that was seen before takes the short way: fell through as before, or the near
    branch went where it went before."""
    cdef block_tracker* t = <block_tracker*> tracker
    cdef block_info* old = t.previous
    cdef block_info* new
    if cython.likely(old != NULL and not t.logging):
        if address == old.end:
            new = old.fell
            if cython.likely(new != NULL and is_known(t, new, size)):
                t.instructions += old.instructions
                t.not_taken += old.cls == LBR_COND
                t.previous = new
                if cython.unlikely(t.instructions >= t.look_at):
                    _look(t, address)
                return
        else:
            new = old.went
            if cython.likely(new != NULL and new.start == address and is_known(t, new, size)):
                t.instructions += old.instructions
                t.taken += 1
                _emit(t, old.start + old.last, address, old.cls, t.cpl)
                t.previous = new
                if cython.unlikely(t.instructions >= t.look_at):
                    _look(t, address)
                return
    _enter(t, address, size)


cdef void _enter(block_tracker* t, uint64_t address, uint32_t size) noexcept nogil:
    cdef block_info* old
    cdef block_info* new
    if t.previous != NULL and t.previous.flags & BLOCK_FLUSH:
        set_aside(t)
        t.leaving.flags &= ~BLOCK_FLUSH
        t.epoch += 1
        if t.epoch == 0:
            flush_blocks(t)  # places of 2**32 epochs ago
    new = block_at(t, address)
    if not is_known(t, new, size):
        new = _classified(t, address, size)
        if new == NULL:
            return  # to be entered again
    old = t.previous
    if old != NULL:
        _leave(t, old, address, cut_short(old, new))
        if old != &t.leaving and not old.flags:
            remember(old, new, address)
    elif t.event_class >= 0:
        _finish_event(t, address)
    t.previous = new
    if t.instructions >= t.look_at:
        _look(t, address)


cdef void _look(block_tracker* t, uint64_t address) noexcept nogil:
    """Is a limit reached?  If not, set when to look again: a branch is an instruction, too."""
    cdef uint64_t branches = t.taken + t.not_taken
    if t.instructions >= t.instruction_limit or branches >= t.branch_limit or t.wanted and (
            t.wanted_flags == 0 or register_value(t, t.flags) & t.wanted_flags):
        _attend(t, address)
    else:
        set_look(t)


ctypedef struct translated_block:  # uc_tb
    uint64_t pc


cdef void blocks_translated(
    void* engine, void* block, void* previous, void* tracker
) noexcept nogil:
    """Translation hook: what is known of the block at this address is out of date."""
    cdef block_tracker* t = <block_tracker*> tracker
    cdef block_info* found = block_at(t, (<translated_block*> block).pc)
    if found.size:
        if t.previous == found:
            set_aside(t)
        found.epoch = t.epoch - 1


# ---------------------------------------------------------------- the rare ways into Python

cdef block_info* _classified(block_tracker* t, uint64_t address, uint32_t size) noexcept nogil:
    cdef uint8_t code[LONGEST_BLOCK]
    cdef block_facts facts
    cdef block_info* place = block_at(t, address)
    if guest_code(&t.code, t.engine, address, size, code):
        if is_same_code(t, place, code, size):
            place.epoch = t.epoch
            return place
        if decode_block(code, size, address, &facts) and not facts.privileged:
            place = new_place(t, address, size)
            if place != NULL:
                set_facts(place, &facts)
                keep_code(t, place, code)
                return place
    return _asked(t, address, size)  # which also reports a lack of memory


cdef block_info* _asked(block_tracker* t, uint64_t address, uint32_t size) noexcept with gil:
    cdef BlockRecorder owner = <BlockRecorder> t.owner
    cdef block_info* place
    try:
        found = owner._classify(address, size)
        if found is None:
            return NULL
        count, last, cls, target, condition, flags = found
        if not ((cls is None or 0 <= cls <= LBR_TSX_ABORT) and 0 <= condition < 64
                and 0 <= last - address < size):
            raise ValueError(f"classify: no class {cls!r} or no condition {condition!r}, or no "
                             f"instruction of this block at {last:#x}")
        place = new_place(t, address, size)
        if place == NULL:
            raise MemoryError("no memory for the table of blocks")
        place.epoch = t.epoch - 1  # until all of it is there
        place.last = last - address
        place.target, place.direct = (0, 0) if target is None else (target, 1)
        place.instructions, place.condition, place.flags = count, condition, flags
        place.cls = NO_BRANCH if cls is None else cls
        place.epoch = t.epoch
        return place
    except BaseException as error:
        owner._failed(error)
        t.previous = NULL
        return NULL


cdef uint64_t _executed(block_tracker* t, uint64_t start, uint64_t end) noexcept nogil:
    cdef uint8_t code[LONGEST_BLOCK]
    cdef int count = -1
    if guest_code(&t.code, t.engine, start, <uint32_t> (end - start), code):
        count = count_instructions(code, <uint32_t> (end - start))
    return <uint64_t> count if count >= 0 else _executed_asked(t, start, end)


cdef uint64_t _executed_asked(
    block_tracker* t, uint64_t start, uint64_t end
) noexcept with gil:
    cdef BlockRecorder owner = <BlockRecorder> t.owner
    try:
        return owner._classify(start, end - start)[0]
    except BaseException as error:
        owner._failed(error)
        return 0


cdef uint64_t blocks_position(block_tracker* t, uint64_t address) noexcept nogil:
    cdef block_info* block = t.previous
    if block == NULL or not block.start < address < block.end:
        return t.instructions
    return t.instructions + _executed(t, block.start, address)


cdef void _attend(block_tracker* t, uint64_t address) noexcept with gil:
    cdef BlockRecorder owner = <BlockRecorder> t.owner
    t.look_at = t.instruction_limit = t.branch_limit = NEVER
    t.wanted = False
    try:
        if owner._attention is not None and owner._attention(address):
            t.previous = NULL  # the block is not executed now
    except BaseException as error:
        owner._failed(error)


cdef void _drain(block_tracker* t) noexcept with gil:
    cdef BlockRecorder owner = <BlockRecorder> t.owner
    try:
        owner.drain()
    except BaseException as error:
        t.log_used = 0
        owner._failed(error)


@cython.final
cdef class BlockRecorder:
    """BlockRecorder(state, classify, *, attention=None, drain=None, failed=None, engine=0, \
read=0, registers=(0, 0, 0), log=0, code=(0, 0, 0, 0))\n--\n
    Records the branches between the blocks that a translating emulator executes.

    Parameters
    ----------
    state : LbrState
        Facility that records.
    classify : callable
        ``classify(address, size)`` describes the block (`BlockFacts`); called once per block and
        again after its code was retranslated.  None: the block will be entered again.
    attention : callable, optional
        ``attention(address)`` is called at the entry of the block at which a `limit` is
        reached.  True if that block is not going to be executed now.
    drain : callable, optional
        Takes the log as an array of BRANCH_DTYPE, oldest first, whenever it is full.
    failed : callable, optional
        Takes an exception that one of the others raised inside a hook.  Without it, `check`
        raises it.
    engine, read : int
        Addresses of the emulator and of its ``int read(engine, int register, void *value)``.
        Without them the privilege level is `cpl`, and a conditional branch to the next
        instruction counts as not taken.
    registers : tuple of int
        Numbers of CS, RFLAGS and RCX for `read`.
    log : int
        Capacity of the log in branches; 0 for none.  The log contains every branch, whatever the
        facility filters, and of conditional branches that fell through (`NOT_TAKEN`).
    code : tuple of int
        The emulator's ``int read(engine, address, protection, bytes, size)`` of guest-virtual
        memory and ``int save(engine, context)``, a context, and the offset in it of flags whose
        bit 15 is set in 64-bit code.  With them `classify` is asked for other code alone, and
        for blocks with RDMSR, WRMSR and XSETBV.

    Notes
    -----
    A cycle is one instruction: the emulator has no other clock.  A call to the next
    instruction is no branch, an instruction under REP retires once.  Taken conditional
    branches to the next instruction are recognised by the flags.

    An instance must outlive the hooks that it was given to.
    """

    def __cinit__(
        self, LbrState state not None, classify, *, attention=None, drain=None,
        failed=None, engine=0, read=0, registers=(0, 0, 0), log=0, code=(0, 0, 0, 0),
    ):
        cdef block_tracker* t = &self.tracker
        memset(t, 0, sizeof(block_tracker))
        if log < 0 or log > 1 << 24:
            raise ValueError(f"log: must be 0 to {1 << 24} branches, not {log}")
        self.state, self._classify = state, classify
        self._attention, self._drain, self._report = attention, drain, failed
        t.lbr, t.owner, t.event_class = state.state, <void*> self, -1
        t.engine, t.read = <void*> <size_t> engine, <register_read> <size_t> read
        t.cs, t.flags, t.count = registers
        read, save, context, flags_at = code
        t.code.read, t.code.save = <code_read> <size_t> read, <context_save> <size_t> save
        t.code.context, t.code.flags_at = <uint8_t*> <size_t> context, flags_at
        t.look_at = t.instruction_limit = t.branch_limit = NEVER
        t.mask, t.log_size, t.logging = FIRST_PLACES - 1, log, log > 0
        t.table = <block_info*> calloc(FIRST_PLACES, sizeof(block_info))
        if log:
            t.log = <lbr_branch*> malloc(log * sizeof(lbr_branch))
        if t.table == NULL or log and t.log == NULL:
            raise MemoryError("no memory for the table of blocks")

    def __dealloc__(self):
        free(self.tracker.table)
        free(self.tracker.kept)
        free(self.tracker.log)

    def _failed(self, error):
        if self._report is not None:
            self._report(error)
        elif self._error is None:
            self._error = error

    @property
    def hooks(self):
        """Addresses for the emulator: block hook, translation hook, their last argument.

        ``void block(void *engine, uint64_t address, uint32_t size, void *last)``;
        ``void translated(void *engine, uc_tb *block, uc_tb *previous, void *last)``.
        """
        return <size_t> &blocks_enter, <size_t> &blocks_translated, <size_t> &self.tracker

    def enter(self, address, size):
        """The block hook, called from Python."""
        cdef uint64_t start = unsigned(address, "address", NEVER)
        cdef uint32_t length = <uint32_t> unsigned(size, "size", 0xFFFFFFFE)
        if not length:
            raise ValueError("size: must be that of a block, not 0")
        with nogil:
            blocks_enter(self.tracker.engine, start, length, &self.tracker)
        self.check()

    def translated(self, address):
        """The block at `address` was retranslated: classify it again."""
        cdef translated_block block
        block.pc = unsigned(address, "address", NEVER)
        blocks_translated(NULL, &block, NULL, &self.tracker)

    def settle(self, address):
        """Execution stopped with the instruction pointer at `address`."""
        cdef block_tracker* t = &self.tracker
        cdef uint64_t at = unsigned(address, "address", NEVER)
        cdef block_info* old = t.previous
        if old != NULL:
            t.previous = NULL
            if old.start <= at < old.end and not (at == old.start and old.target == at):
                if at > old.start:
                    t.instructions += _executed(t, old.start, at)
            else:
                _leave(t, old, at, False)
        elif t.event_class >= 0:
            _finish_event(t, at)
        self.check()

    def interrupted(self, address, cls, served=False):
        """An exception or interrupt of class `cls` was raised at `address`.

        It is recorded when its handler is entered.  None: not recorded (debug exceptions).
        `address` is that of the faulting or next instruction, for INT n the one after it.
        `served`: the emulator may serve it without a handler; if execution then continues within
        15 bytes of `address`, nothing is recorded.
        """
        cdef block_tracker* t = &self.tracker
        cdef uint64_t at = unsigned(address, "address", NEVER), resume = at
        cdef int32_t kind = NO_BRANCH if cls is None else cls
        cdef block_info* old = t.previous
        if old != NULL and kind == LBR_SOFT_INT and at == old.end:
            t.instructions += old.instructions
            t.previous = NULL
            at = old.start + old.last
        elif old != NULL and old.start <= at < old.end:
            t.previous = NULL
            if at > old.start:
                t.instructions += _executed(t, old.start, at)
        else:
            self.settle(at)
        t.event_from, t.event_class = at, kind
        t.event_at, t.event_served = resume, served
        self.check()

    def emulated(self, address):
        """The block is left in front of the instruction at `address`, which a hook emulates."""
        self.interrupted(address, None)
        self.cancel()

    def cancel(self):
        """The `interrupted` event has no handler: nothing is recorded."""
        self.tracker.event_class = -1

    def retired(self, count):
        """A hook has emulated `count` instructions that are no branches."""
        self.tracker.instructions += <uint64_t> unsigned(count, "count", 0xFFFFFFFF)

    def take_instructions(self):
        """Instructions since the last branch; the next branch does not count them again."""
        cdef uint64_t count = self.tracker.instructions - self.tracker.marked
        self.tracker.marked = self.tracker.instructions
        return count

    def limit(self, instructions=None, branches=None):
        """Call `attention` at the first block after this many more instructions or branches."""
        cdef block_tracker* t = &self.tracker
        t.instruction_limit = NEVER if instructions is None else (
            t.instructions + <uint64_t> unsigned(instructions, "instructions", NEVER))
        t.branch_limit = NEVER if branches is None else (
            t.taken + t.not_taken + <uint64_t> unsigned(branches, "branches", NEVER))
        set_look(t)

    def attend(self, flags=0):
        """Call `attention` at the next block, or the first at which RFLAGS has one of `flags`."""
        self.tracker.wanted, self.tracker.wanted_flags = True, unsigned(flags, "flags", NEVER)
        set_look(&self.tracker)

    def flush(self):
        """Discard the facts of all blocks."""
        flush_blocks(&self.tracker)

    def drain(self):
        """Empty the log: its branches as an array of BRANCH_DTYPE, oldest first."""
        cdef block_tracker* t = &self.tracker
        if t.log == NULL:
            return np.zeros(0, BRANCH_DTYPE)
        branches = np.frombuffer(
            PyBytes_FromStringAndSize(<char*> t.log, t.log_used * sizeof(lbr_branch)),
            BRANCH_DTYPE)
        t.log_used = 0
        if self._drain is not None:
            self._drain(branches)
        return branches

    def check(self):
        """Raise the exception that a callback raised inside a hook."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def cpl(self):
        """Privilege level, read from CS after each branch that may change it."""
        return self.tracker.cpl

    @cpl.setter
    def cpl(self, value):
        if value not in (0, 1, 2, 3):
            raise ValueError(f"cpl: must be 0 to 3, not {value}")
        self.tracker.cpl = value

    @property
    def direct(self):
        """Branches go into the facility at once; False: only into the log."""
        return self.tracker.lbr != NULL

    @direct.setter
    def direct(self, value):
        if not value and self.tracker.log == NULL:
            raise ValueError("direct: without a log, branches have nowhere else to go")
        self.tracker.lbr = self.state.state if value else NULL

    @property
    def logging(self):
        """Branches go into the log; at first if there is one."""
        return self.tracker.logging

    @logging.setter
    def logging(self, value):
        if value and self.tracker.log == NULL:
            raise ValueError("logging: there is no log")
        self.tracker.logging = value

    @property
    def block(self):
        """Start and end of the block that is being executed."""
        if self.tracker.previous == NULL:
            return None
        return self.tracker.previous.start, self.tracker.previous.end

    @property
    def instructions(self):
        """Instructions retired, in whole blocks."""
        return self.tracker.instructions

    @property
    def taken(self):
        """Branches taken."""
        return self.tracker.taken

    @property
    def not_taken(self):
        """Conditional branches that fell through."""
        return self.tracker.not_taken

    @property
    def unexplained(self):
        """Transitions that no instruction accounts for: someone wrote the instruction pointer."""
        return self.tracker.unexplained

    @property
    def known(self):
        """Blocks in the table."""
        return self.tracker.used

    @property
    def classified(self):
        """Blocks that were described: once each, and again when their code had changed."""
        return self.tracker.classified
