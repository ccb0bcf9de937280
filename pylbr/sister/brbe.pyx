"""Arm's Branch Record Buffer Extension (Arm ARM DDI 0487, D19 and its pseudocode)."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from lbrcore import Fault
from lbrcore.buffers cimport truth, unsigned
from lbrcore.lbr cimport (
    LBR_COND, LBR_EXCEPTION, LBR_FLAG_IN_TSX, LBR_FLAG_MISPRED, LBR_INTERRUPT, LBR_IRET,
    LBR_NEAR_IND_CALL, LBR_NEAR_IND_JMP, LBR_NEAR_REL_CALL, LBR_NEAR_REL_JMP, LBR_NEAR_RET,
    LBR_SOFT_INT, LBR_SYSCALL, LBR_SYSRET, LBR_TSX_ABORT, LBR_ZERO_CALL, lbr_branch, lbr_entry,
)

from pylbr.sister.brbe_rows import BRBE_ROWS, TYPES
from pylbr.sister.config import BrbeConfig
from pylbr.sister.details import Cause
from pylbr.sister.facility cimport BranchFacility, common_info
from pylbr.sister.rows import field_mask, implemented

cdef dict ROWS = {row.name: row for row in BRBE_ROWS}
_control, _function = ROWS["BRBCR_EL1"], ROWS["BRBFCR_EL1"]

cdef uint64_t E0BRE = field_mask(_control, "E0BRE"), EXBRE = field_mask(_control, "ExBRE")
cdef uint64_t COUNT = field_mask(_control, "CC"), PREDICT = field_mask(_control, "MPRED")
cdef uint64_t FREEZE = field_mask(_control, "FZP")
cdef uint64_t RETURNS = field_mask(_control, "ERTN")
cdef uint64_t EXCEPTIONS = field_mask(_control, "EXCEPTION")
cdef uint64_t PAUSED = field_mask(_function, "PAUSED"), EXCLUDE = field_mask(_function, "EnI")
cdef uint64_t FAILED = field_mask(_function, "LASTFAILED")
cdef int BANK_SHIFT = 28

cdef enum:
    VALID_TARGET = 1
    VALID_SOURCE = 2
    INF_MPRED = 1 << 5
    INF_EL_SHIFT = 6
    INF_TYPE_SHIFT = 8
    INF_T = 1 << 16
    INF_LASTFAILED = 1 << 17
    INF_CC_SHIFT = 32
    CYCLES_END = 1 << 20    # the cycle counter has 20 bits
    NO_TYPE = 0xFF
cdef uint64_t INF_CCU = <uint64_t> 1 << 46

# Match bit of BRBFCR_EL1 of each class, 0 for what it does not filter.
cdef uint64_t MATCH[16]
# BRBINF.TYPE by class and cause, and the class of each type.
cdef uint8_t TYPE_OF[16][16]
cdef uint8_t CLASS_OF[64]
memset(MATCH, 0, sizeof(MATCH))
memset(TYPE_OF, NO_TYPE, sizeof(TYPE_OF))
memset(CLASS_OF, LBR_EXCEPTION, sizeof(CLASS_OF))
for _cls, _field, _type in (
    (LBR_COND, "CONDDIR", "DIRECT_COND"), (LBR_NEAR_IND_JMP, "INDIRECT", "INDIRECT"),
    (LBR_NEAR_REL_JMP, "DIRECT", "DIRECT_UNCOND"), (LBR_NEAR_IND_CALL, "INDCALL", "INDIRECT_LINK"),
    (LBR_ZERO_CALL, "DIRCALL", "DIRECT_LINK"), (LBR_NEAR_REL_CALL, "DIRCALL", "DIRECT_LINK"),
    (LBR_NEAR_RET, "RTN", "RET"),
):
    MATCH[<int> _cls] = field_mask(_function, _field)
    for _cause in range(16):
        TYPE_OF[<int> _cls][<int> _cause] = TYPES[_type]
    CLASS_OF[<int> TYPES[_type]] = _cls
_interrupts = {Cause.FIQ: "FIQ", Cause.SYSTEM_ERROR: "SERROR"}
_exceptions = {
    Cause.BREAKPOINT: "INSN_DEBUG", Cause.WATCHPOINT: "DATA_DEBUG", Cause.DATA_FAULT: "DATA_FAULT",
    Cause.INSTRUCTION_FAULT: "INSN_FAULT", Cause.ALIGNMENT: "ALIGN_FAULT",
    Cause.SYSTEM_ERROR: "SERROR",
}
for _cause in Cause:
    TYPE_OF[<int> LBR_EXCEPTION][<int> _cause] = TYPES[_exceptions.get(_cause, "TRAP")]
    TYPE_OF[<int> LBR_INTERRUPT][<int> _cause] = TYPES[_interrupts.get(_cause, "IRQ")]
    TYPE_OF[<int> LBR_SYSCALL][<int> _cause] = TYPES["CALL"]
    TYPE_OF[<int> LBR_SOFT_INT][<int> _cause] = TYPES["INSN_DEBUG"]
    TYPE_OF[<int> LBR_SYSRET][<int> _cause] = TYPE_OF[<int> LBR_IRET][<int> _cause] = TYPES["ERET"]
for _type, _cls in (("CALL", LBR_SYSCALL), ("IRQ", LBR_INTERRUPT), ("FIQ", LBR_INTERRUPT),
                    ("ERET", LBR_IRET)):
    CLASS_OF[<int> TYPES[_type]] = _cls


cdef uint64_t encoded(uint64_t cycles) noexcept nogil:
    """BRBINF.CC in place: mantissa of eight bits, exponent of six."""
    cdef uint64_t exponent = 0
    if cycles >= CYCLES_END:
        return <uint64_t> 0x3FFF << INF_CC_SHIFT
    if cycles >> 8:
        exponent = 1
        while cycles >> 9:
            exponent += 1
            cycles >>= 1
    return (exponent << 8 | (cycles & 0xFF)) << INF_CC_SHIFT


cdef uint64_t decoded(uint64_t info) noexcept nogil:
    cdef uint64_t exponent = (info >> 40) & 0x3F, mantissa = (info >> INF_CC_SHIFT) & 0xFF
    if exponent == 0:
        return mantissa
    # Injected records may hold exponents that no counter of 20 bits makes.
    return (mantissa | 0x100) << (exponent - 1) if exponent <= 24 else <uint64_t> -1


cdef void push(brbe_state* s, uint64_t source, uint64_t target, uint64_t info) noexcept nogil:
    cdef lbr_entry* entry
    s.head = (s.head + 1) & (s.records - 1)
    entry = &s.ring[s.head]
    entry.from_, entry.to, entry.info = source, target, info


cdef void record_branch(brbe_state* s, uint8_t type, uint64_t info, uint64_t source,
                        uint64_t target) noexcept nogil:
    """A record but for TYPE and what counts since the last one."""
    info |= <uint64_t> type << INF_TYPE_SHIFT
    info |= encoded(s.cycles) if s.counting and s.known else INF_CCU
    if s.function & FAILED:
        info |= INF_LASTFAILED
        s.function &= ~FAILED
    push(s, source, target, info)
    s.cycles = 0
    s.known = s.counting


cdef void step(brbe_state* s, const lbr_branch* branch, bint tme) noexcept nogil:
    """BRBEBranch, BRBEException and BRBEExceptionReturn of the pseudocode."""
    cdef uint8_t cls = branch.cls, type = TYPE_OF[cls][branch.flags >> 4]
    cdef uint8_t before = <uint8_t> (3 - branch.cpl_from), after = <uint8_t> (3 - branch.cpl_to)
    cdef bint source = (s.allowed >> before) & 1, target = (s.allowed >> after) & 1
    cdef uint64_t info = 0
    if source:
        s.cycles = min(s.cycles + branch.cycles, <uint64_t> CYCLES_END)
    else:
        s.cycles = s.known = 0
    if cls == LBR_TSX_ABORT and tme and source:
        s.function |= FAILED
    if type == NO_TYPE:
        return
    if tme and branch.flags & LBR_FLAG_IN_TSX:
        info |= INF_T
    if MATCH[cls]:
        if source and (s.wanted >> cls) & 1:
            if s.mispredicts and branch.flags & LBR_FLAG_MISPRED:
                info |= INF_MPRED
            info |= before << INF_EL_SHIFT | VALID_SOURCE | VALID_TARGET
            record_branch(s, type, info, branch.from_, branch.to)
        return
    if cls == LBR_SYSRET or cls == LBR_IRET:
        if not (s.returns >> before) & 1:
            return
        if source and s.mispredicts and branch.flags & LBR_FLAG_MISPRED:
            info |= INF_MPRED
    elif not (s.exceptions >> after) & 1:
        return
    if not (source or target):
        return
    if source:
        info |= VALID_SOURCE
    if target:
        info |= VALID_TARGET | after << INF_EL_SHIFT
    record_branch(s, type, info, branch.from_ if source else 0, branch.to if target else 0)


cdef void control_changed(brbe_state* s, bint el2) noexcept nogil:
    """Work out what the control registers make of each EL and class."""
    cdef uint64_t first = s.control[0], second = s.control[1] if el2 else <uint64_t> -1
    cdef bint exclude = (s.function & EXCLUDE) != 0
    cdef int cls
    s.allowed = s.exceptions = s.returns = 0
    s.wanted = 0
    if not s.function & PAUSED:
        if (s.control[1] if el2 and s.host else first) & E0BRE:
            s.allowed |= 1
        if first & EXBRE:
            s.allowed |= 2
        if el2 and second & EXBRE:
            s.allowed |= 4
    if first & EXCEPTIONS:
        s.exceptions |= 2
    if first & RETURNS:
        s.returns |= 2
    if el2 and second & EXCEPTIONS:
        s.exceptions |= 4
    if el2 and second & RETURNS:
        s.returns |= 4
    for cls in range(16):
        if MATCH[cls] and ((s.function & MATCH[cls]) != 0) != exclude:
            s.wanted |= <uint64_t> 1 << cls
    s.counting = first & second & COUNT != 0
    s.mispredicts = first & second & PREDICT != 0
    if not s.counting or s.function & PAUSED:
        s.known = 0


@cython.final
cdef class BrbeState(BranchFacility):
    """BrbeState(config=None)\n--\n
    The branch record buffer of one processing element.

    Parameters
    ----------
    config : BrbeConfig, optional
    """

    def __cinit__(self, config=None):
        config = BrbeConfig() if config is None else config
        if not isinstance(config, BrbeConfig):
            raise TypeError(f"config: must be a BrbeConfig, not {type(config).__name__}")
        self._config, self.levels = config, 0xF
        self._rows = {}
        for row in BRBE_ROWS:
            if not row.needs or getattr(config, row.needs):
                for n in range(row.count):
                    self._rows[self._number(row, n)] = (row, n)
        self.control_mask = implemented(ROWS["BRBCR_EL1"], config)
        self.function_mask = implemented(ROWS["BRBFCR_EL1"], config)
        self.info_mask = implemented(ROWS["BRBINFINJ_EL1"], config)
        self.reset()

    @staticmethod
    def _number(row, n):
        return row.number + ((n & 15) << 3 | (n & 16) >> 2)

    def __reduce__(self):
        raise TypeError("BrbeState is not pickled")

    cdef void take(self, const lbr_branch* branches, size_t count) noexcept nogil:
        cdef size_t i
        cdef bint tme = (self.info_mask & INF_T) != 0
        for i in range(count):
            step(&self.state, &branches[i], tme)

    cdef uint32_t count(self) noexcept nogil:
        return self.state.records

    cdef uint32_t give_raw(self, lbr_entry* entries) noexcept nogil:
        cdef uint32_t i
        for i in range(self.state.records):
            entries[i] = self.state.ring[(self.state.head - i) & (self.state.records - 1)]
        return self.state.records

    cdef uint32_t give(self, lbr_entry* entries) noexcept nogil:
        cdef uint32_t i, n = self.give_raw(entries)
        cdef uint64_t info
        for i in range(n):
            info = entries[i].info
            if not info & (VALID_SOURCE | VALID_TARGET):
                entries[i].from_ = entries[i].to = entries[i].info = 0
                continue
            if not info & VALID_SOURCE:
                entries[i].from_ = <uint64_t> -1
            if not info & VALID_TARGET:
                entries[i].to = 0
            entries[i].info = common_info(
                CLASS_OF[(info >> INF_TYPE_SHIFT) & 63], (info & INF_MPRED) != 0,
                (info & INF_T) != 0, not info & INF_CCU, decoded(info))
        return n

    cdef void forget(self) noexcept nogil:
        memset(&self.state.ring[0], 0, sizeof(self.state.ring))

    # Registers

    def _row(self, register, el):
        number = register
        if isinstance(register, str):
            number = next((k for k, (row, n) in self._rows.items()
                           if row.name.format(n) == register), None)
        if number not in self._rows or unsigned(el, "el", 3) < 3 - self._rows[number][0].level:
            raise Fault(f"{register if isinstance(register, str) else hex(register)}: undefined "
                        f"at EL{el}")
        row, n = self._rows[number]
        return row.name, n, row.writable

    def read(self, register, *, el=1, e2h=False):
        """MRS: value of a system register.

        Parameters
        ----------
        register : str or int
            Name as the manual spells it, or `pylbr.sister.brbe_rows.sysreg` of its encoding.
        el : int
            Exception level of the access.
        e2h : bool
            HCR_EL2.E2H: at EL2 the name BRBCR_EL1 leads to BRBCR_EL2, BRBCR_EL12 to BRBCR_EL1.

        Raises
        ------
        Fault
            The access is UNDEFINED.
        """
        name, n, _ = self._row(register, el)
        cdef brbe_state* s = &self.state
        cdef uint32_t at
        cdef lbr_entry entry
        if name.startswith("BRBCR"):
            return s.control[self._which(name, el, e2h)]
        if name == "BRBFCR_EL1":
            return s.function
        if name == "BRBTS_EL1":
            return s.time
        if name == "BRBIDR0_EL1":
            return 5 << 12 | s.records
        at = <uint32_t> ((s.function >> BANK_SHIFT & 3) * 32 + <uint32_t> n)
        if "INJ" in name:
            entry = s.injected
        elif at < s.records:
            entry = s.ring[(s.head - at) & (s.records - 1)]
        else:
            return 0
        return {"INF": entry.info, "SRC": entry.from_, "TGT": entry.to}[name[3:6]]

    def write(self, register, value, *, el=1, e2h=False):
        """MSR: write a system register; parameters and faults as `read`."""
        name, _, writable = self._row(register, el)
        cdef uint64_t given = unsigned(value, "value", <uint64_t> -1)
        if not writable:
            raise Fault(f"{name}: read-only")
        if name.startswith("BRBCR"):
            self.state.control[self._which(name, el, e2h)] = given & self.control_mask
        elif name == "BRBFCR_EL1":
            self.state.function = given & self.function_mask
        elif name == "BRBTS_EL1":
            self.state.time = given
        elif name == "BRBINFINJ_EL1":
            self.state.injected.info = given & self.info_mask
        elif name == "BRBSRCINJ_EL1":
            self.state.injected.from_ = given
        else:
            self.state.injected.to = given
        control_changed(&self.state, self._config.el2)

    def _which(self, name, el, e2h):
        """0: BRBCR_EL1, 1: BRBCR_EL2."""
        if name == "BRBCR_EL12" and not (e2h and el == 2):
            raise Fault("BRBCR_EL12: undefined but at EL2 with HCR_EL2.E2H")
        return int(name == "BRBCR_EL2" or (
            name == "BRBCR_EL1" and self._config.el2 and e2h and el == 2))

    # Instructions and events

    def invalidate(self):
        """BRB IALL: zero all records."""
        self.forget()

    def inject(self):
        """BRB INJ: push the record of the injection registers, which are 0 afterwards."""
        cdef lbr_entry* one = &self.state.injected
        push(&self.state, one.from_, one.to, one.info)
        memset(one, 0, sizeof(lbr_entry))

    def freeze(self, time=0):
        """A BRBE freeze event: BRBFCR_EL1.PAUSED is set, BRBTS_EL1 takes the time."""
        self.state.time = unsigned(time, "time", <uint64_t> -1)
        self.frozen = True

    def overflow(self, *, el=0, hyp=False, time=0):
        """A counter has overflowed; freeze if BRBCR_ELx.FZP asks for it.

        Parameters
        ----------
        el : int
            Exception level at that moment: in a prohibited region nothing freezes.
        hyp : bool
            The counter is one of MDCR_EL2's second range.
        time : int

        Returns
        -------
        bool
            Whether it froze.
        """
        second = truth(hyp, "hyp") and self._config.el2
        if not (self.state.allowed >> unsigned(el, "el", 3)) & 1 or (
                not self.state.control[1 if second else 0] & FREEZE):
            return False
        self.freeze(time)
        return True

    @property
    def host(self):
        """HCR_EL2.TGE: BRBCR_EL2 decides about EL0."""
        return bool(self.state.host)

    @host.setter
    def host(self, value):
        self.state.host = truth(value, "host")
        control_changed(&self.state, self._config.el2)

    @property
    def frozen(self):
        """BRBFCR_EL1.PAUSED: while set, nothing is recorded."""
        return self.state.function & PAUSED != 0

    @frozen.setter
    def frozen(self, value):
        self.state.function = self.state.function & ~PAUSED | (PAUSED if truth(value, "frozen")
                                                               else 0)
        control_changed(&self.state, self._config.el2)

    @property
    def active(self):
        """Recording at any EL."""
        return self.state.allowed != 0

    @property
    def cycles(self):
        """Cycles since the last record, at most 2**20; None while they are unknown."""
        return self.state.cycles if self.state.known else None

    def reset(self):
        """All 0."""
        memset(&self.state, 0, sizeof(brbe_state))
        self.state.records = self._config.records
        control_changed(&self.state, self._config.el2)

    def copy(self):
        """An independent state with the same contents."""
        cdef BrbeState other = BrbeState.__new__(BrbeState, self._config)
        other.state = self.state
        return other

    @property
    def config(self):
        """What the implementation offers."""
        return self._config
