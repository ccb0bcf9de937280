"""Entered blocks to branches.  Twin: ``pylbr.x86.blocks_reference``."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from lbrcore.lbr cimport (
    LBR_COND, LBR_EINVAL, LBR_NEAR_RET, LBR_NOT_TAKEN, LBR_OK, LBR_SOFT_INT, LBR_SYSCALL,
    LBR_TSX_ABORT, LBR_ZERO_CALL, lbr_branch,
)
from pylbr.cpu.compiled.retire cimport lbr_cpu_branch
from pylbr.cpu.compiled.tables cimport LBR_NO_BRANCH

cdef extern from *:
    """
    #define LBR_MOST_INSTRUCTIONS 0xFFFFFFFFull
    """
    const uint64_t MOST "LBR_MOST_INSTRUCTIONS"


cdef int _emit(
    lbr_cpu* cpu, uint64_t from_, uint64_t to, int cls, uint8_t cpl
) noexcept nogil:
    """A branch to code at privilege level `cpl`."""
    cdef lbr_branch branch
    memset(&branch, 0, sizeof(branch))
    branch.from_, branch.to = from_, to
    branch.instructions = branch.cycles = <uint32_t> min(cpu.since, MOST)
    branch.cls = <uint8_t> cls
    branch.cpl_from, branch.cpl_to = cpu.cpl, cpl
    cpu.since, cpu.cpl = 0, cpl
    return lbr_cpu_branch(cpu, &branch)


cdef int _leave(lbr_cpu* cpu, const lbr_block* old, uint64_t to, uint8_t cpl) noexcept nogil:
    """The block `old` was executed and execution went on at `to`."""
    cpu.since += old.instructions
    if old.cls <= LBR_NEAR_RET:
        if old.cls == LBR_COND and to == old.end and not (cpu.held and to == old.target):
            return _emit(cpu, old.last, to, LBR_NOT_TAKEN, cpl)
        if old.direct and to != old.target:
            return LBR_OK  # nothing that its instructions account for
        return _emit(cpu, old.last, to, old.cls, cpl)
    if old.cls == LBR_NO_BRANCH or old.cls == LBR_ZERO_CALL:
        if old.repeats and to == old.last:
            cpu.since -= 1  # one more round; it retires with the last
        return LBR_OK
    if to == old.end and (old.cls == LBR_SYSCALL or old.cls == LBR_SOFT_INT):
        return LBR_OK  # the emulator did the guest kernel's work
    return _emit(cpu, old.last, to, old.cls, cpl)


cdef int _arrive(lbr_cpu* cpu, uint64_t to, uint8_t cpl) noexcept nogil:
    """Execution continues at `to`: conclude what went before."""
    cdef const lbr_block* old = cpu.block
    cdef uint8_t cls = cpu.event_class
    cdef int result
    cpu.block = NULL
    cpu.event_class = LBR_NO_BRANCH
    if cls != LBR_NO_BRANCH:
        result = _emit(cpu, cpu.event_from, to, cls, cpl)
    elif old != NULL:
        result = _leave(cpu, old, to, cpl)
    else:
        cpu.cpl, result = cpl, LBR_OK
    cpu.held = 0
    return result


cdef int lbr_cpu_enter(lbr_cpu* cpu, const lbr_block* block, int cpl) noexcept nogil:
    cdef int result
    if not 0 <= cpl <= 3:
        return LBR_EINVAL
    result = _arrive(cpu, block.start, <uint8_t> cpl)
    cpu.block = block
    return result


cdef int lbr_cpu_interrupt(
    lbr_cpu* cpu, int cls, uint64_t from_, uint32_t instructions
) noexcept nogil:
    if not LBR_ZERO_CALL < cls <= LBR_TSX_ABORT:
        return LBR_EINVAL
    cpu.block, cpu.held = NULL, 0
    cpu.since += instructions
    cpu.event_class, cpu.event_from = <uint8_t> cls, from_
    return LBR_OK


cdef int lbr_cpu_settle(lbr_cpu* cpu, uint64_t next) noexcept nogil:
    return _arrive(cpu, next, cpu.cpl)
