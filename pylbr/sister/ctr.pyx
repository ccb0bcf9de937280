"""RISC-V's Control Transfer Records (Smctr and Ssctr, version 1.0)."""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from lbrcore import Fault
from lbrcore.buffers cimport truth, unsigned
from lbrcore.lbr cimport (
    LBR_COND, LBR_EXCEPTION, LBR_FLAG_MISPRED, LBR_INTERRUPT, LBR_IRET, LBR_NEAR_IND_CALL,
    LBR_NEAR_IND_JMP, LBR_NEAR_REL_CALL, LBR_NEAR_REL_JMP, LBR_NEAR_RET, LBR_NOT_TAKEN,
    LBR_SOFT_INT, LBR_SYSCALL, LBR_SYSRET, LBR_ZERO_CALL, lbr_branch, lbr_entry,
)

from pylbr.sister.config import CtrConfig
from pylbr.sister.ctr_rows import CTR_ROWS, ENTRIES_FIRST, TYPES
from pylbr.sister.details import LINK, VIRTUAL, Cause
from pylbr.sister.facility cimport BranchFacility, common_info
from pylbr.sister.rows import field_mask, implemented

cdef dict ROWS = {row.name: row for row in CTR_ROWS}
_control, _status, _data = ROWS["mctrctl"], ROWS["sctrstatus"], ROWS["sireg3"]

cdef uint64_t U = field_mask(_control, "U"), S = field_mask(_control, "S")
cdef uint64_t M = field_mask(_control, "M"), RASEMU = field_mask(_control, "RASEMU")
cdef uint64_t STE = field_mask(_control, "STE"), MTE = field_mask(_control, "MTE")
cdef uint64_t BPFRZ = field_mask(_control, "BPFRZ"), LCOFIFRZ = field_mask(_control, "LCOFIFRZ")
cdef uint64_t NTBREN = field_mask(_control, "NTBREN")
cdef uint64_t FROZEN = field_mask(_status, "FROZEN")
cdef uint64_t CCV = field_mask(_data, "CCV")
cdef uint8_t LINKED = LINK, V = VIRTUAL
cdef uint8_t OVERFLOW_CAUSE = Cause.COUNTER_OVERFLOW
cdef uint8_t BREAKPOINT = Cause.BREAKPOINT, WATCHPOINT = Cause.WATCHPOINT
cdef uint16_t FIRST = ENTRIES_FIRST

cdef enum:
    # Levels of cpl_from and cpl_to; with V: VS and VU.
    MACHINE = 0
    SUPERVISOR = 2
    USER = 3
    CC_SHIFT = 16
    INHIBIT_SHIFT = 32     # the filter bit of type t is bit 32 + t
    T_EXCEPTION = 1
    T_INTERRUPT = 2
    T_TRAP_RETURN = 3
    T_NOT_TAKEN = 4
    T_INDIRECT_CALL = 8
    T_DIRECT_CALL = 9
    T_SWAP = 12
    T_RETURN = 13

# ctrdata.TYPE by class without and with LINK, 0 for what is not recorded; class of a type.
cdef uint8_t TYPE_OF[2][16]
cdef uint8_t CLASS_OF[16]
memset(TYPE_OF, 0, sizeof(TYPE_OF))
memset(CLASS_OF, LBR_EXCEPTION, sizeof(CLASS_OF))
for _cls, _plain, _linked in (
    (LBR_EXCEPTION, "EXCEPTION", ""), (LBR_SYSCALL, "EXCEPTION", ""),
    (LBR_SOFT_INT, "EXCEPTION", ""), (LBR_INTERRUPT, "INTERRUPT", ""),
    (LBR_SYSRET, "TRAP_RETURN", ""), (LBR_IRET, "TRAP_RETURN", ""),
    (LBR_NOT_TAKEN, "NOT_TAKEN", ""), (LBR_COND, "TAKEN", ""),
    (LBR_NEAR_IND_CALL, "INDIRECT_CALL", ""), (LBR_ZERO_CALL, "DIRECT_CALL", ""),
    (LBR_NEAR_REL_CALL, "DIRECT_CALL", ""), (LBR_NEAR_IND_JMP, "INDIRECT_JUMP", "OTHER_INDIRECT"),
    (LBR_NEAR_REL_JMP, "DIRECT_JUMP", "OTHER_DIRECT"), (LBR_NEAR_RET, "RETURN", "SWAP"),
):
    TYPE_OF[0][<int> _cls] = TYPES[_plain]
    TYPE_OF[1][<int> _cls] = TYPES[_linked or _plain]
    CLASS_OF[<int> TYPES[_plain]] = _cls
    CLASS_OF[<int> TYPES[_linked or _plain]] = _cls
for _cls in (LBR_EXCEPTION, LBR_IRET):  # several classes have these types
    CLASS_OF[<int> TYPE_OF[0][<int> _cls]] = _cls


cdef uint64_t encoded(const ctr_state* s) noexcept nogil:
    """CC in place: mantissa of twelve bits, exponent of up to four; it saturates with the
    counter."""
    cdef uint64_t cycles = s.cycles, exponent = 0, top = cycles
    if cycles >> 12:
        while top >> 12:
            top >>= 1
            exponent += 1
        cycles >>= exponent - 1
    return (exponent << 12 | (cycles & 0xFFF)) << CC_SHIFT


cdef uint64_t decoded(uint64_t data) noexcept nogil:
    cdef uint64_t exponent = (data >> 28) & 0xF, mantissa = (data >> CC_SHIFT) & 0xFFF
    return mantissa if exponent == 0 else (mantissa | 0x1000) << (exponent - 1)


cdef bint external(const ctr_state* s, uint8_t before, uint8_t after) noexcept nogil:
    """Whether a trap into a mode that is not enabled is recorded: the enables of the target and
    of every mode between.  No trap leads to a mode that is as privileged or less."""
    cdef bint machine = (s.machine & MTE) != 0, supervisor = (s.machine & STE) != 0
    cdef bint guest = (s.guest & STE) != 0
    if before == USER | V and after == SUPERVISOR | V:
        return guest
    if before == USER | V and not guest:
        return False
    if after == SUPERVISOR:
        return supervisor and (before == USER or before & V)
    if after == MACHINE:
        return machine and (before == SUPERVISOR or (supervisor and before != MACHINE))
    return False


cdef void write_record(ctr_state* s, uint8_t type, bint mispredicted, uint64_t source,
                       uint64_t target, bint rasemu) noexcept nogil:
    cdef lbr_entry* entry
    cdef uint32_t at = s.next
    if rasemu and type == T_SWAP:
        at = (s.next - 1) & (s.depth - 1)
    else:
        s.next = (s.next + 1) & (s.depth - 1)
    entry = &s.ring[at]
    entry.from_ = source & ~<uint64_t> 1 | 1
    entry.to = target & ~<uint64_t> 1 | (1 if mispredicted and s.misp else 0)
    entry.info = type
    if s.timed and s.valid and not rasemu:
        entry.info |= CCV | encoded(s)
    s.cycles = 0
    s.valid = 1


cdef void step(ctr_state* s, const lbr_branch* branch) noexcept nogil:
    cdef uint8_t cls = branch.cls, cause = branch.flags >> 4
    cdef uint8_t type = TYPE_OF[(branch.flags & LINKED) != 0][cls]
    cdef uint8_t before = branch.cpl_from, after = branch.cpl_to
    cdef bint from_enabled = (s.enabled >> before) & 1, to_enabled = (s.enabled >> after) & 1
    # Between V = 1 and V = 0, vsctrctl counts.
    cdef uint64_t control = s.guest if (before | after) & V else s.machine
    cdef uint64_t freezes = s.guest if after & V else s.machine
    cdef bint rasemu = (control & RASEMU) != 0
    cdef uint64_t source, target
    cdef bint inhibited, mispredicted = (branch.flags & LBR_FLAG_MISPRED) != 0
    if s.frozen:
        return
    if from_enabled:
        s.cycles = min(s.cycles + branch.cycles, s.most_cycles)
    if type == 0:
        return
    if (type == T_INTERRUPT and cause == OVERFLOW_CAUSE and freezes & LCOFIFRZ) or (
            type == T_EXCEPTION and freezes & BPFRZ and (
                cls == LBR_SOFT_INT or (cls == LBR_EXCEPTION and (
                    cause == BREAKPOINT or cause == WATCHPOINT)))):
        s.frozen = 1
        return
    if rasemu:
        if not from_enabled or not (T_INDIRECT_CALL <= type <= T_DIRECT_CALL
                                    or T_SWAP <= type <= T_RETURN):
            return
        if type == T_RETURN:
            s.next = (s.next - 1) & (s.depth - 1)
            s.ring[s.next].from_ &= ~<uint64_t> 1
            return
        write_record(s, type, mispredicted, branch.from_, branch.to, rasemu)
        return
    inhibited = ((control >> (INHIBIT_SHIFT + type)) & 1) != (type == T_NOT_TAKEN)
    if type == T_EXCEPTION or type == T_INTERRUPT:
        source = branch.from_ if from_enabled else 0
        if to_enabled:
            if not inhibited:
                write_record(s, type, False, source, branch.to, False)
        elif from_enabled and external(s, before, after):
            write_record(s, type, False, branch.from_, 0, False)
    elif from_enabled and not inhibited:
        target = 0 if type == T_TRAP_RETURN and not to_enabled else branch.to
        write_record(s, type, mispredicted, branch.from_, target, False)


cdef void control_changed(ctr_state* s) noexcept nogil:
    """Enabled modes; any write of a control register clears the cycle counter."""
    s.enabled = 0
    if s.machine & M:
        s.enabled |= 1 << MACHINE
    if s.machine & S:
        s.enabled |= 1 << SUPERVISOR
    if s.machine & U:
        s.enabled |= 1 << USER
    if s.guest & S:
        s.enabled |= <uint8_t> (1 << (SUPERVISOR | V))
    if s.guest & U:
        s.enabled |= <uint8_t> (1 << (USER | V))
    s.cycles = s.valid = 0


@cython.final
cdef class CtrState(BranchFacility):
    """CtrState(config=None)\n--\n
    The control transfer records of one hart.

    Parameters
    ----------
    config : CtrConfig, optional
    """

    def __cinit__(self, config=None):
        config = CtrConfig() if config is None else config
        if not isinstance(config, CtrConfig):
            raise TypeError(f"config: must be a CtrConfig, not {type(config).__name__}")
        self._config = config
        self.levels = 0b11001101 if config.hypervisor else 0b1101
        self._rows = {row.number: row for row in CTR_ROWS
                      if not row.needs or getattr(config, row.needs)}
        self.machine_mask = implemented(ROWS["mctrctl"], config)
        self.supervisor_mask = implemented(ROWS["sctrctl"], config)
        self.guest_mask = implemented(ROWS["vsctrctl"], config)
        self.data_mask = implemented(ROWS["sireg3"], config)
        # Bits of the exponent that do not exist read 0.
        self.data_mask &= ~(<uint64_t> (0xF << config.exponent_bits & 0xF) << 28)
        self.reset()

    def __reduce__(self):
        raise TypeError("CtrState is not pickled")

    cdef void take(self, const lbr_branch* branches, size_t count) noexcept nogil:
        cdef size_t i
        for i in range(count):
            step(&self.state, &branches[i])

    cdef uint32_t count(self) noexcept nogil:
        return self.state.depth

    cdef uint32_t give_raw(self, lbr_entry* entries) noexcept nogil:
        cdef uint32_t i
        for i in range(self.state.depth):
            entries[i] = self.state.ring[(self.state.next - i - 1) & (self.state.depth - 1)]
        return self.state.depth

    cdef uint32_t give(self, lbr_entry* entries) noexcept nogil:
        cdef uint32_t i, n = self.give_raw(entries)
        cdef uint64_t data, source, target
        for i in range(n):
            source, target, data = entries[i].from_, entries[i].to, entries[i].info
            if not source & 1:
                entries[i].from_ = entries[i].to = entries[i].info = 0
                continue
            source &= ~<uint64_t> 1
            entries[i].from_ = source if source else <uint64_t> -1
            entries[i].to = target & ~<uint64_t> 1
            entries[i].info = common_info(
                CLASS_OF[data & 15], target & 1, False, (data & CCV) != 0, decoded(data))
        return n

    cdef void forget(self) noexcept nogil:
        memset(&self.state.ring[0], 0, sizeof(self.state.ring))
        self.state.cycles = self.state.valid = 0

    # Registers

    def _row(self, register, level):
        number = register
        if isinstance(register, str):
            number = next((k for k, row in self._rows.items() if row.name == register), None)
        mode = unsigned(level, "level", 7)
        if not self.levels >> mode & 1:
            raise ValueError(f"level: {level} is no mode of this hart")
        name = register if isinstance(register, str) else hex(register)
        known = number in self._rows
        if not known or mode & 3 > self._rows[number].level:
            kind = "virtual" if known and mode & VIRTUAL else "illegal"
            raise Fault(f"{name}: {kind}-instruction exception")
        row = self._rows[number]
        # The hypervisor's registers are a guest's own under the names without a v.
        if mode & VIRTUAL:
            if row.name == "sctrdepth" or row.name.startswith("vs"):
                raise Fault(f"{name}: virtual-instruction exception")
            if row.name == "sctrctl" or row.name.startswith(("siselect", "sireg")):
                row = ROWS["v" + row.name]
        return row.name

    cdef lbr_entry* selected(self, bint guest) except? NULL:
        """The entry that siselect or vsiselect names; NULL where none lies."""
        cdef uint16_t select = self.state.guest_select if guest else self.state.select
        if select < FIRST or select > FIRST + 255:
            raise Fault(f"siselect: {select:#x} names no register of CTR")
        if <uint32_t> (select - FIRST) >= self.state.depth:
            return NULL
        return &self.state.ring[(self.state.next - (select - FIRST) - 1) & (self.state.depth - 1)]

    def read(self, register, *, level=0):
        """CSRR: value of a register.

        Parameters
        ----------
        register : str or int
            Name as the manual spells it, or CSR number.
        level : int
            Mode of the access, as `cpl_from` has it: 0 M, 2 S, 3 U, plus 4 where V = 1.

        Raises
        ------
        Fault
            The access raises an illegal-instruction or virtual-instruction exception.
        """
        name = self._row(register, level)
        cdef ctr_state* s = &self.state
        cdef lbr_entry* entry
        if name == "mctrctl":
            return s.machine
        if name == "sctrctl":
            return s.machine & self.supervisor_mask
        if name == "vsctrctl":
            return s.guest
        if name == "sctrstatus":
            return s.next | (FROZEN if s.frozen else 0)
        if name == "sctrdepth":
            return (16, 32, 64, 128, 256).index(s.depth)
        if name.endswith("iselect"):
            return s.guest_select if name[0] == "v" else s.select
        entry = self.selected(name[0] == "v")
        which = name.partition("ireg")[2]
        if entry == NULL or which in ("4", "5", "6"):
            return 0
        return {"": entry.from_, "2": entry.to, "3": entry.info}[which]

    def write(self, register, value, *, level=0):
        """CSRW: write a register; parameters and faults as `read`."""
        name = self._row(register, level)
        cdef uint64_t given = unsigned(value, "value", <uint64_t> -1)
        cdef ctr_state* s = &self.state
        cdef lbr_entry* entry
        if name == "mctrctl":
            s.machine = given & self.machine_mask
            control_changed(s)
        elif name == "sctrctl":
            s.machine = s.machine & ~self.supervisor_mask | (given & self.supervisor_mask)
            control_changed(s)
        elif name == "vsctrctl":
            s.guest = given & self.guest_mask
            control_changed(s)
        elif name == "sctrstatus":
            s.next = <uint32_t> given & (s.depth - 1)
            s.frozen = (given & FROZEN) != 0
        elif name == "sctrdepth":
            depth = 16 << (given & 7)
            if depth in self._config.depths:
                s.depth = depth
                s.next &= s.depth - 1
        elif name == "vsiselect":
            s.guest_select = <uint16_t> (given & 0xFFF)
        elif name == "siselect":
            s.select = <uint16_t> (given & 0xFFF)
        else:
            entry = self.selected(name[0] == "v")
            which = name.partition("ireg")[2]
            if entry == NULL:
                return
            if which == "":
                entry.from_ = given
            elif which == "2":
                entry.to = given if s.misp else given & ~<uint64_t> 1
            elif which == "3":
                entry.info = given & self.data_mask

    # Instructions and events

    def sctrclr(self):
        """SCTRCLR: zero all entries and the cycle counter."""
        self.forget()

    @property
    def frozen(self):
        """sctrstatus.FROZEN: while set, nothing is recorded."""
        return bool(self.state.frozen)

    @frozen.setter
    def frozen(self, value):
        self.state.frozen = truth(value, "frozen")

    @property
    def active(self):
        """Recording in any mode."""
        return self.state.enabled != 0 and not self.state.frozen

    @property
    def cycles(self):
        """CtrCycleCounter; None where the next record has CCV = 0."""
        return self.state.cycles if self.state.valid else None

    def reset(self):
        """All 0, the largest depth."""
        memset(&self.state, 0, sizeof(ctr_state))
        config = self._config
        self.state.depth = max(config.depths)
        self.state.misp, self.state.timed = config.misp, config.cycles
        self.state.most_cycles = (1 << (11 + (1 << config.exponent_bits))) - 1

    def copy(self):
        """An independent state with the same contents."""
        cdef CtrState other = CtrState.__new__(CtrState, self._config)
        other.state = self.state
        return other

    @property
    def config(self):
        """What the implementation offers."""
        return self._config
