"""Branches through the counters into the facility, and the PMIs that they cause.

Twin: ``pylbr.cpu.recording``.  A counter that takes PEBS records sets no status bit and raises no
PMI; its record is the emulator's to write.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from lbrcore.batch cimport lbr_record_batch
from lbrcore.lbr cimport (
    LBR_EINVAL, LBR_FLAG_IN_TSX, LBR_NOT_TAKEN, LBR_OK, LBR_UNIT_BRANCHES, LBR_UNIT_INSTRUCTIONS,
    lbr_check, lbr_read_records, lbr_record,
)
from lbrcore.control cimport lbr_write_ctl
from pylbr.arch.bits cimport (
    CTL_LBREN, DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_FREEZE_PERFMON_ON_PMI, STATUS_CTR_FRZ,
    STATUS_LBR_FRZ,
)
from pylbr.cpu.compiled.tables cimport (
    LBR_MODEL_AMD, LBR_MODEL_ARCH, LBR_MODEL_EFFECTIVE, LBR_MODEL_FREEZE_CLEARS_LBREN,
    LBR_MODEL_LEGACY, LBR_PMI, lbr_counter, lbr_has,
)
from pylbr.cpu.compiled.values cimport (
    FIRST_FIXED, lbr_counter_mask, lbr_pmu_changed, lbr_set_status,
)
from pylbr.cpu.debugctl cimport lbr_freeze

cdef extern from *:
    """
    #define LBR_LOW_32 0xFFFFFFFFull
    """
    const uint64_t LOW_32 "LBR_LOW_32"

cdef enum:
    MOST_LOGGED = 3
    STREAMLINED_FROM = 4   # PMU version at which a freeze sets LBR_FRZ and changes no enable


# ---------------------------------------------------------------- counting

cdef inline uint64_t _amount(const lbr_counter* counter, const lbr_branch* branch) noexcept nogil:
    """What one branch adds to a counter."""
    if not (counter.table >> (branch.cls | branch.cpl_from << 4)) & 1:
        return 0
    if branch.flags & counter.need != counter.need:
        return 0
    if counter.unit == LBR_UNIT_BRANCHES:
        return 1
    return branch.instructions if counter.unit == LBR_UNIT_INSTRUCTIONS else branch.cycles


cdef uint64_t _count(lbr_cpu* cpu, const lbr_branch* branch, bint is_branch) noexcept nogil:
    """Add a branch to the counters; a bit for each that overflows."""
    cdef const lbr_counter* counter
    cdef uint64_t* value
    cdef uint64_t mask, total, overflowed = 0
    cdef int i
    for i in range(cpu.armed_count):
        counter = &cpu.armed[i]
        if not is_branch and counter.unit == LBR_UNIT_BRANCHES:
            continue
        value = (&cpu.pmc[counter.place] if counter.place < FIRST_FIXED
                 else &cpu.fixed[counter.place - FIRST_FIXED])
        mask = lbr_counter_mask(cpu, counter.place)
        total = value[0] + _amount(counter, branch)
        value[0] = total & mask
        if total > mask:
            overflowed |= <uint64_t> 1 << counter.place
    return overflowed


# ---------------------------------------------------------------- overflow

cdef int lbr_cpu_raise_pmi(lbr_cpu* cpu) noexcept nogil:
    """Freeze as IA32_DEBUGCTL demands, then deliver the PMI."""
    cdef bint streamlined = (
        cpu.model.pmu_version >= STREAMLINED_FROM or lbr_has(cpu, LBR_MODEL_AMD))
    if (not streamlined and lbr_has(cpu, LBR_MODEL_ARCH)
            and lbr_has(cpu, LBR_MODEL_FREEZE_CLEARS_LBREN)
            and cpu.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI):
        lbr_write_ctl(&cpu.lbr, cpu.lbr.ctl & ~<uint64_t> CTL_LBREN)
    if lbr_freeze(&cpu.lbr, &cpu.debugctl, lbr_has(cpu, LBR_MODEL_LEGACY), streamlined):
        lbr_set_status(cpu, cpu.status | STATUS_LBR_FRZ)
    if cpu.debugctl & DEBUGCTL_FREEZE_PERFMON_ON_PMI:
        if streamlined:
            lbr_set_status(cpu, cpu.status | STATUS_CTR_FRZ)
        else:
            cpu.global_ctrl = 0
            lbr_pmu_changed(cpu)
    if cpu.on_pmi != NULL:
        cpu.on_pmi(cpu, cpu.on_pmi_context)
    return LBR_PMI


cdef int _overflow(lbr_cpu* cpu, uint64_t overflowed) noexcept nogil:
    """Counters have overflowed: status and PMI."""
    overflowed &= ~cpu.pebs_enable
    if not overflowed:
        return LBR_OK
    if cpu.model.pmu_version >= 2:
        cpu.status |= overflowed
    return lbr_cpu_raise_pmi(cpu) if cpu.interrupts & overflowed else LBR_OK


# ---------------------------------------------------------------- what a record contains

cdef inline bint _as_it_is(const lbr_cpu* cpu) noexcept nogil:
    """Records contain a branch's own data and nothing else."""
    return not (cpu.logging or cpu.in_tsx or cpu.cs_base) and cpu.long_mode


cdef uint64_t _shown(const lbr_cpu* cpu, uint64_t address) noexcept nogil:
    """Effective on models that record those, 32 bits outside 64-bit mode (SDM vol. 3, 17.4.8.1)."""
    if lbr_has(cpu, LBR_MODEL_EFFECTIVE):
        address -= cpu.cs_base
    return address if cpu.long_mode else address & LOW_32


cdef void _translate(const lbr_cpu* cpu, lbr_branch* branch) noexcept nogil:
    """Add what the processor's state adds."""
    cdef uint64_t amount
    cdef int i
    if cpu.in_tsx:
        branch.flags |= LBR_FLAG_IN_TSX
    if cpu.cs_base or not cpu.long_mode:
        branch.from_ = _shown(cpu, branch.from_)
        branch.to = _shown(cpu, branch.to)
    for i in range(cpu.armed_count):
        if cpu.armed[i].logs:
            amount = _amount(&cpu.armed[i], branch)
            branch.events[cpu.armed[i].place] = <uint8_t> min(amount, <uint64_t> MOST_LOGGED)


cdef int lbr_cpu_branch(lbr_cpu* cpu, const lbr_branch* branch) noexcept nogil:
    cdef lbr_branch seen
    cdef uint64_t overflowed
    if not lbr_check(branch):
        return LBR_EINVAL
    seen = branch[0]
    if not _as_it_is(cpu):
        _translate(cpu, &seen)
    lbr_record(&cpu.lbr, &seen)
    overflowed = _count(cpu, &seen, True)
    return _overflow(cpu, overflowed) if overflowed else LBR_OK


cdef int lbr_cpu_record(
    lbr_cpu* cpu, const lbr_branch* branches, size_t count, size_t* taken
) noexcept nogil:
    cdef size_t i
    taken[0] = 0
    if not cpu.armed_count and _as_it_is(cpu):
        if lbr_record_batch(&cpu.lbr, branches, count) != LBR_OK:
            return LBR_EINVAL
        taken[0] = count
        return LBR_OK
    for i in range(count):
        if not lbr_check(&branches[i]):
            return LBR_EINVAL
    for i in range(count):
        taken[0] = i + 1
        if lbr_cpu_branch(cpu, &branches[i]) == LBR_PMI:
            return LBR_PMI
    return LBR_OK


cdef int lbr_cpu_retire(
    lbr_cpu* cpu, uint32_t instructions, uint32_t cycles, int cpl
) noexcept nogil:
    cdef lbr_branch none
    cdef uint64_t overflowed
    if not 0 <= cpl <= 3:
        return LBR_EINVAL
    memset(&none, 0, sizeof(none))
    none.cls = LBR_NOT_TAKEN
    none.instructions, none.cycles = instructions, cycles
    none.cpl_from = none.cpl_to = <uint8_t> cpl
    lbr_record(&cpu.lbr, &none)
    overflowed = _count(cpu, &none, False)
    return _overflow(cpu, overflowed) if overflowed else LBR_OK


cdef uint32_t lbr_cpu_records(const lbr_cpu* cpu, lbr_entry* entries) noexcept nogil:
    return lbr_read_records(&cpu.lbr, entries)
