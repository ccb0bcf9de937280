"""Facts of a block of 64-bit code, compiled; the twin is ``pylbr.x86.facts.decode_block``."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport LBR_COND, LBR_NEAR_REL_CALL, LBR_NEAR_REL_JMP, LBR_ZERO_CALL

from pylbr.x86.block_flags cimport (
    BLOCK_FLUSH, BLOCK_REP, BLOCK_STORE, CONDITION_32BIT, CONDITION_LOOPNE, NO_BRANCH,
)

cdef extern from "decode.h" nogil:
    struct x86_insn:
        uint8_t length
        uint8_t cls
        uint8_t condition
        uint8_t map
        uint8_t opcode
        uint8_t prefix
        uint8_t modrm
        uint8_t operand
        uint8_t encoding
        uint8_t address_size
        uint8_t disp_size
        uint32_t flags
        int64_t displacement
    enum:
        X86_LEGACY
        X86_REP
        X86_STRING
        X86_STACK
        X86_VECTOR
        X86_SHADOW_STACK
        X86_OPERAND_MEM
    int x86_decode(const uint8_t* bytes, size_t available, x86_insn* out)

cdef enum:
    RDMSR_WRMSR = 0x30  # 0F 30 and 0F 32
    GROUP7 = 0x01       # 0F 01: XSETBV is D1, INVLPG /7 of memory
    XSETBV_MODRM = 0xD1
    MOV_TO_CONTROL = 0x22
    INVPCID = 0x82      # 66 0F 38 82
    PREFIX_66 = 1


cdef inline bint _privileged(const x86_insn* insn) noexcept nogil:
    """RDMSR, WRMSR, XSETBV."""
    if insn.map != 1 or insn.encoding != X86_LEGACY:
        return False
    return (insn.opcode & ~2) == RDMSR_WRMSR or (
        insn.opcode == GROUP7 and insn.modrm == XSETBV_MODRM)


cdef inline bint _remaps(const x86_insn* insn) noexcept nogil:
    """INVLPG, MOV to a control register, INVPCID: addresses may mean other code afterwards."""
    if insn.encoding != X86_LEGACY:
        return False
    if insn.map == 1:
        return insn.opcode == MOV_TO_CONTROL or (
            insn.opcode == GROUP7 and insn.operand == X86_OPERAND_MEM
            and (insn.modrm >> 3 & 7) == 7)
    return insn.map == 2 and insn.opcode == INVPCID and insn.prefix == PREFIX_66


cdef enum:
    NO = 0
    YES = 1
    UNKNOWN = 2


cdef inline int _stores(const x86_insn* insn) noexcept nogil:
    """Does this instruction, no branch, write memory?  UNKNOWN: the twin decides."""
    cdef uint8_t op = insn.opcode, reg = insn.modrm >> 3 & 7
    if insn.encoding != X86_LEGACY or insn.flags & (X86_STRING | X86_SHADOW_STACK):
        return UNKNOWN
    if insn.map == 0 and 0x50 <= op <= 0x57:
        return YES  # PUSH
    if insn.operand != X86_OPERAND_MEM:
        return UNKNOWN if insn.disp_size or insn.flags & (X86_STACK | X86_VECTOR) else NO
    if insn.map == 0:
        if op < 0x40 and (op & 7) < 4:  # ADD to CMP; the last only compares
            return NO if op & 2 or op >= 0x38 else YES
        if op in (0x88, 0x89, 0xC6, 0xC7):
            return YES
        if op in (0x80, 0x81, 0x83):
            return NO if reg == 7 else YES
        if op in (0x63, 0x84, 0x85, 0x8A, 0x8B):
            return NO
    elif insn.map == 1 and op in (0xB6, 0xB7, 0xBE, 0xBF, 0xAF):
        return NO
    elif insn.map == 1 and op in (0x11, 0x29, 0x7F) and insn.flags & X86_VECTOR:
        return YES
    return UNKNOWN


cdef bint decode_block(
    const uint8_t* code, uint32_t size, uint64_t address, block_facts* out
) noexcept nogil:
    cdef x86_insn insn
    cdef uint32_t at = 0, count = 0, last = 0
    cdef int stores
    out.privileged = 0
    while at < size:
        if not x86_decode(code + at, size - at, &insn):
            return False
        last = at
        at += insn.length
        count += 1
        if _privileged(&insn):
            if out.privileged == MOST_PRIVILEGED:
                return False
            out.privileged_at[out.privileged] = address + last
            out.privileged += 1
    if not count:
        return False
    out.instructions, out.last = count, address + last
    out.cls, out.condition, out.flags, out.direct, out.target = insn.cls, 0, 0, 0, 0
    if _remaps(&insn):
        out.flags = BLOCK_FLUSH
    elif insn.flags & X86_REP:
        out.flags = BLOCK_REP
    if insn.cls == NO_BRANCH:
        if count > 1 or out.flags:
            return True
        stores = _stores(&insn)
        if stores == YES:
            out.flags = BLOCK_STORE
        return stores != UNKNOWN
    if insn.cls in (LBR_COND, LBR_NEAR_REL_JMP, LBR_NEAR_REL_CALL, LBR_ZERO_CALL):
        out.direct, out.target = 1, address + at + <uint64_t> insn.displacement
    if insn.cls == LBR_COND:
        out.condition = insn.condition
        if insn.condition >= CONDITION_LOOPNE and insn.address_size == 4:
            out.condition |= CONDITION_32BIT
    return True


cdef int count_instructions(const uint8_t* code, uint32_t size) noexcept nogil:
    cdef x86_insn insn
    cdef uint32_t at = 0
    cdef int count = 0
    while at < size:
        if not x86_decode(code + at, size - at, &insn):
            return -1
        at += insn.length
        count += 1
    return count


def facts_of(const unsigned char[:] code not None, uint64_t address):
    """facts_of(code, address)\n--\n
    Decode a block of 64-bit code.

    Parameters
    ----------
    code : bytes
        All of the block.
    address : int
        Linear address of its first byte.

    Returns
    -------
    (BlockFacts, tuple of int) or None
        The facts as `pylbr.x86.facts.decode_block` has them, and the addresses of RDMSR, WRMSR
        and XSETBV.  None if that one has to be asked: an instruction is refused, or a single
        one may store.
    """
    cdef block_facts facts
    cdef uint32_t i
    if not len(code) or not decode_block(&code[0], <uint32_t> len(code), address, &facts):
        return None
    return (
        (facts.instructions, facts.last, None if facts.cls == NO_BRANCH else facts.cls,
         facts.target if facts.direct else None, facts.condition, facts.flags),
        tuple(facts.privileged_at[i] for i in range(facts.privileged)),
    )
