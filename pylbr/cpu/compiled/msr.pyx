"""RDMSR and WRMSR by the tables' accessors.  Twin: ``pylbr.cpu.msr``.

A read never changes anything.  A write gets a value whose reserved bits have been checked and
masks the bits that the row ignores.
"""

from libc.stdint cimport int64_t

from lbrcore.control cimport lbr_set_enable, lbr_write_ctl, lbr_write_depth, lbr_write_tos
from lbrcore.lbr cimport (
    LBR_GP, LBR_OK, lbr_entry, lbr_read_entry, lbr_read_ler,
    lbr_write_entry, lbr_write_ler,
)
from pylbr.arch.bits cimport (
    DBG_EXTN_CFG_LBRV2EN, EVTSEL_EN_LBR_LOG, EVTSEL_IN_TXCP, INFO_CYC_CNT, INFO_MISPRED,
    PERF_CAPABILITIES_LBR_FMT, PERF_CAPABILITIES_PEBS_ARCH_REG, PERF_CAPABILITIES_PEBS_BASELINE,
    PERF_CAPABILITIES_PEBS_REC_FMT, PERF_CAPABILITIES_PEBS_TRAP,
)
from pylbr.cpu.compiled.lookup cimport lbr_known_elsewhere, lbr_register_of
from pylbr.cpu.compiled.tables cimport (
    LBR_ACC_AMD_CONFIG, LBR_ACC_AMD_FROM, LBR_ACC_CANONICAL,
    LBR_ACC_CAPABILITIES, LBR_ACC_CONSTANT, LBR_ACC_DEBUGCTL, LBR_ACC_EVTSEL, LBR_ACC_FIXED,
    LBR_ACC_FIXED_CTRL, LBR_ACC_GLOBAL_CTRL, LBR_ACC_GLOBAL_INUSE, LBR_ACC_GLOBAL_RESET,
    LBR_ACC_GLOBAL_SET, LBR_ACC_GLOBAL_STATUS, LBR_ACC_LBR_CTL, LBR_ACC_LBR_DEPTH,
    LBR_ACC_LBR_FROM, LBR_ACC_LBR_INFO, LBR_ACC_LBR_SELECT, LBR_ACC_LBR_TO, LBR_ACC_LBR_TOS,
    LBR_ACC_LEGACY_LBR_FROM, LBR_ACC_LEGACY_LBR_INFO, LBR_ACC_LEGACY_LBR_SINGLE,
    LBR_ACC_LEGACY_LBR_TO, LBR_ACC_LEGACY_LER_FROM, LBR_ACC_LEGACY_LER_TO, LBR_ACC_LER_FROM,
    LBR_ACC_LER_INFO, LBR_ACC_LER_TO, LBR_ACC_PEBS_ENABLE, LBR_ACC_PLAIN, LBR_ACC_PMC,
    LBR_ACC_PMC_FULL, LBR_ACC_RTIT, LBR_MODEL_HOST_ABSENT_READS_ZERO, LBR_MODEL_INTEL,
    LBR_MODEL_LER_IGNORES_HIGH_BITS, LBR_MODEL_NONCANONICAL_FAULTS, LBR_MODEL_PT_EXCLUDES_LBR,
    LBR_MODEL_SIGNEXT_QUIRK, LBR_MODEL_SINGLE, LBR_MODEL_TO_CYCLES, lbr_has, lbr_register,
)
from pylbr.cpu.compiled.values cimport (
    lbr_counter_mask, lbr_cpu_set_debugctl, lbr_in_use, lbr_pmu_changed, lbr_set_status, lbr_sync,
    lbr_tracing,
)

cdef extern from *:
    """
    #define LBR_LOW_HALF 0xFFFFFFFFull
    #define LBR_AMD_IP ((1ull << 58) - 1)
    #define LBR_AMD_WRITTEN (1ull << 32)
    #define LBR_AMD_WRITTEN_TO (7ull << 33)
    """
    const uint64_t LOW_HALF "LBR_LOW_HALF"
    # AMD keeps validity in TO[63:61]: what software wrote lies in bits of INFO that it lacks.
    const uint64_t AMD_IP "LBR_AMD_IP"
    const uint64_t AMD_WRITTEN "LBR_AMD_WRITTEN"
    const uint64_t AMD_WRITTEN_TO "LBR_AMD_WRITTEN_TO"

cdef enum:
    AMD_WIDTH = 58
    CYCLES_SHIFT = 48   # of LBR format 6, in TO


cdef inline uint64_t _extend(uint64_t value, int width) noexcept nogil:
    """Copy bit `width` - 1 into all bits above it."""
    return <uint64_t> (<int64_t> (value << (64 - width)) >> (64 - width))


cdef bint lbr_is_canonical(uint64_t address, int width) noexcept nogil:
    """An address of `width` linear bits; on 32-bit processors the upper half is 0."""
    return address >> 32 == 0 if width == 32 else address == _extend(address, width)


cdef inline int _refuse(lbr_fault* fault, const char* rule, uint64_t bits) noexcept nogil:
    if fault != NULL:
        fault.rule = rule
        fault.bits = bits
    return LBR_GP


# ---------------------------------------------------------------- records

cdef inline bint _canonical_part(const lbr_cpu* cpu, uint64_t value, int flags) noexcept nogil:
    """Bits between the flags and the linear address are copies of the address's top bit."""
    cdef uint64_t mask = ~<uint64_t> 0 >> flags
    if cpu.model.linear_width <= 32:
        return True
    return (value & mask) == (_extend(value, cpu.model.linear_width) & mask)


cdef inline uint32_t _newest(const lbr_cpu* cpu, uint32_t n) noexcept nogil:
    """Distance of physical register `n` from the newest record."""
    return (cpu.lbr.head - n) & (cpu.lbr.depth - 1)


cdef inline uint64_t _from_flags(const lbr_cpu* cpu) noexcept nogil:
    return ~(~<uint64_t> 0 >> cpu.model.from_flags) if cpu.model.from_flags else 0


cdef uint64_t _legacy_from(const lbr_cpu* cpu, const lbr_entry* entry) noexcept nogil:
    cdef uint64_t flags = _from_flags(cpu)
    return entry.info & flags | entry.from_ & ~flags


cdef uint64_t _legacy_to(const lbr_cpu* cpu, const lbr_entry* entry) noexcept nogil:
    if not lbr_has(cpu, LBR_MODEL_TO_CYCLES):
        return entry.to
    return ((entry.info & INFO_CYC_CNT) << CYCLES_SHIFT
            | entry.to & ((<uint64_t> 1 << CYCLES_SHIFT) - 1))


cdef uint64_t _amd_to(const lbr_cpu* cpu, const lbr_entry* entry) noexcept nogil:
    cdef uint64_t flags = 0
    if entry.info & AMD_WRITTEN:
        flags = (entry.info & AMD_WRITTEN_TO) >> 33
    elif entry.from_ | entry.to:
        flags = <uint64_t> cpu.model.amd_valid << 1
    return entry.to & AMD_IP | flags << 61


cdef void _amd_set_to(lbr_entry* entry, uint64_t value) noexcept nogil:
    entry.info = entry.info & ~AMD_WRITTEN_TO | AMD_WRITTEN | (value >> 61) << 33
    entry.to = _extend(value, AMD_WIDTH)


cdef int _write_legacy_from(
    lbr_cpu* cpu, uint32_t i, lbr_entry* entry, uint64_t value, lbr_fault* fault
) noexcept nogil:
    cdef uint64_t flags = _from_flags(cpu)
    if lbr_has(cpu, LBR_MODEL_SIGNEXT_QUIRK):
        # Bits 62:61 belong to the sign extension, though records have them 0 (spec 3.5).
        if not _canonical_part(cpu, value, 1):
            return _refuse(fault, "bits 62:61 must be copies of the address's top bit",
                           <uint64_t> 3 << 61)
    elif (lbr_has(cpu, LBR_MODEL_NONCANONICAL_FAULTS)
          and not _canonical_part(cpu, value, cpu.model.from_flags)):
        return _refuse(fault, "the address is not canonical", value)
    entry.from_ = _extend(value, 64 - cpu.model.from_flags)
    entry.info = entry.info & ~flags | value & flags
    return lbr_write_entry(&cpu.lbr, i, entry)


cdef int _write_legacy_to(
    lbr_cpu* cpu, uint32_t i, lbr_entry* entry, uint64_t value, lbr_fault* fault
) noexcept nogil:
    if lbr_has(cpu, LBR_MODEL_TO_CYCLES):
        entry.info = entry.info & ~<uint64_t> INFO_CYC_CNT | value >> CYCLES_SHIFT
        entry.to = _extend(value, CYCLES_SHIFT)
    elif (lbr_has(cpu, LBR_MODEL_NONCANONICAL_FAULTS)
          and not _canonical_part(cpu, value, 0)):
        return _refuse(fault, "the address is not canonical", value)
    else:
        entry.to = value
    return lbr_write_entry(&cpu.lbr, i, entry)


cdef int _write_ler(
    lbr_cpu* cpu, int part, uint64_t value, lbr_fault* fault
) noexcept nogil:
    cdef lbr_entry ler
    if (part < 2 and not lbr_has(cpu, LBR_MODEL_LER_IGNORES_HIGH_BITS)
            and not lbr_is_canonical(value, cpu.model.linear_width)):
        return _refuse(fault, "the address is not canonical", value)
    lbr_read_ler(&cpu.lbr, &ler)
    if part == 0:
        ler.from_ = value
    elif part == 1:
        ler.to = value
    else:
        ler.info = value
    lbr_write_ler(&cpu.lbr, &ler)
    return LBR_OK


cdef int _read_record(
    const lbr_cpu* cpu, int accessor, uint32_t n, uint64_t* value, lbr_fault* fault
) noexcept nogil:
    cdef lbr_entry entry
    cdef uint32_t i = n
    if LBR_ACC_LEGACY_LBR_SINGLE <= accessor <= LBR_ACC_LEGACY_LBR_INFO:
        i = _newest(cpu, n)
    if lbr_read_entry(&cpu.lbr, i, &entry) != LBR_OK:
        return _refuse(fault, "the number is not below the depth", 0)
    if accessor == LBR_ACC_LBR_FROM:
        value[0] = entry.from_
    elif accessor == LBR_ACC_LBR_TO:
        value[0] = entry.to
    elif accessor == LBR_ACC_LBR_INFO or accessor == LBR_ACC_LEGACY_LBR_INFO:
        value[0] = entry.info
    elif accessor == LBR_ACC_LEGACY_LBR_FROM:
        value[0] = _legacy_from(cpu, &entry)
    elif accessor == LBR_ACC_LEGACY_LBR_TO:
        value[0] = _legacy_to(cpu, &entry)
    elif accessor == LBR_ACC_LEGACY_LBR_SINGLE:
        value[0] = entry.from_ & LOW_HALF | entry.to << 32
    elif accessor == LBR_ACC_AMD_FROM:
        value[0] = entry.from_ & AMD_IP | entry.info & INFO_MISPRED
    else:
        value[0] = _amd_to(cpu, &entry)
    return LBR_OK


cdef int _write_record(
    lbr_cpu* cpu, int accessor, uint32_t n, uint64_t value, lbr_fault* fault
) noexcept nogil:
    cdef lbr_entry entry
    cdef uint32_t i = n
    if LBR_ACC_LEGACY_LBR_SINGLE <= accessor <= LBR_ACC_LEGACY_LBR_INFO:
        i = _newest(cpu, n)
    if lbr_read_entry(&cpu.lbr, i, &entry) != LBR_OK:
        return _refuse(fault, "the number is not below the depth", 0)
    if accessor == LBR_ACC_LEGACY_LBR_FROM:
        return _write_legacy_from(cpu, i, &entry, value, fault)
    if accessor == LBR_ACC_LEGACY_LBR_TO:
        return _write_legacy_to(cpu, i, &entry, value, fault)
    if accessor == LBR_ACC_LBR_FROM:
        entry.from_ = value
    elif accessor == LBR_ACC_LBR_TO:
        entry.to = value
    elif accessor == LBR_ACC_LBR_INFO or accessor == LBR_ACC_LEGACY_LBR_INFO:
        entry.info = value
    elif accessor == LBR_ACC_LEGACY_LBR_SINGLE:
        entry.from_, entry.to, entry.info = value & LOW_HALF, value >> 32, 0
    elif accessor == LBR_ACC_AMD_FROM:
        _amd_set_to(&entry, _amd_to(cpu, &entry))  # TO reads as before
        entry.from_ = _extend(value, AMD_WIDTH)
        entry.info = entry.info & ~INFO_MISPRED | value & INFO_MISPRED
    else:
        _amd_set_to(&entry, value)
    return lbr_write_entry(&cpu.lbr, i, &entry)


# ---------------------------------------------------------------- the rest

cdef int _read(
    const lbr_cpu* cpu, const lbr_register* row, uint32_t n, uint64_t* value, lbr_fault* fault
) noexcept nogil:
    cdef int accessor = row.accessor
    cdef lbr_entry ler
    if row.of_lbr and lbr_has(cpu, LBR_MODEL_PT_EXCLUDES_LBR) and lbr_tracing(cpu):
        value[0] = 0
        return LBR_OK
    if accessor == LBR_ACC_CONSTANT:
        value[0] = row.reset
    elif accessor <= LBR_ACC_RTIT:
        value[0] = cpu.value[row.value]
    elif accessor == LBR_ACC_DEBUGCTL:
        value[0] = cpu.debugctl
    elif accessor == LBR_ACC_LBR_CTL or accessor == LBR_ACC_LBR_SELECT:
        value[0] = cpu.lbr.ctl
    elif accessor == LBR_ACC_LBR_DEPTH:
        value[0] = cpu.lbr.depth
    elif accessor == LBR_ACC_LBR_TOS:
        value[0] = cpu.lbr.head & (cpu.lbr.depth - 1)
    elif accessor == LBR_ACC_AMD_CONFIG:
        value[0] = DBG_EXTN_CFG_LBRV2EN if cpu.lbr.enable else 0
    elif accessor == LBR_ACC_PMC or accessor == LBR_ACC_PMC_FULL:
        value[0] = cpu.pmc[n]
    elif accessor == LBR_ACC_FIXED:
        value[0] = cpu.fixed[n]
    elif accessor == LBR_ACC_EVTSEL:
        value[0] = cpu.evtsel[n]
    elif accessor == LBR_ACC_FIXED_CTRL:
        value[0] = cpu.fixed_ctrl
    elif accessor == LBR_ACC_GLOBAL_CTRL:
        value[0] = cpu.global_ctrl
    elif accessor == LBR_ACC_GLOBAL_STATUS:
        value[0] = cpu.status
    elif accessor == LBR_ACC_GLOBAL_RESET or accessor == LBR_ACC_GLOBAL_SET:
        value[0] = 0
    elif accessor == LBR_ACC_GLOBAL_INUSE:
        value[0] = lbr_in_use(cpu)
    elif accessor == LBR_ACC_PEBS_ENABLE:
        value[0] = cpu.pebs_enable
    elif (LBR_ACC_LER_FROM <= accessor <= LBR_ACC_LER_INFO
          or accessor == LBR_ACC_LEGACY_LER_FROM or accessor == LBR_ACC_LEGACY_LER_TO):
        lbr_read_ler(&cpu.lbr, &ler)
        if accessor == LBR_ACC_LER_FROM:
            value[0] = ler.from_
        elif accessor == LBR_ACC_LER_TO:
            value[0] = ler.to
        elif accessor == LBR_ACC_LER_INFO:
            value[0] = ler.info
        elif accessor == LBR_ACC_LEGACY_LER_FROM:
            value[0] = (ler.from_ & LOW_HALF if lbr_has(cpu, LBR_MODEL_SINGLE)
                        else _legacy_from(cpu, &ler))
        else:
            value[0] = (ler.to & LOW_HALF if lbr_has(cpu, LBR_MODEL_SINGLE)
                        else _legacy_to(cpu, &ler))
    else:
        return _read_record(cpu, accessor, n, value, fault)
    return LBR_OK


cdef int _write_capabilities(
    lbr_cpu* cpu, const lbr_register* row, uint64_t value, lbr_fault* fault
) noexcept nogil:
    """What a host may give a guest: features taken away, formats 0 or the model's own."""
    cdef uint64_t pebs = (
        PERF_CAPABILITIES_PEBS_TRAP | PERF_CAPABILITIES_PEBS_ARCH_REG
        | PERF_CAPABILITIES_PEBS_REC_FMT | PERF_CAPABILITIES_PEBS_BASELINE)
    cdef uint64_t number = value & PERF_CAPABILITIES_LBR_FMT
    cdef uint64_t lacking = value & ~row.reset & ~<uint64_t> PERF_CAPABILITIES_LBR_FMT
    if number and number != cpu.model.lbr_format:
        return _refuse(fault, cpu.model.format_rule, number)
    if lacking:
        return _refuse(fault, "the model lacks the feature", lacking)
    if value & PERF_CAPABILITIES_PEBS_REC_FMT and (value ^ row.reset) & pebs:
        return _refuse(
            fault, "the PEBS fields must be the model's, or PEBS_REC_FMT 0",
            (value ^ row.reset) & pebs)
    cpu.value[row.value] = value
    return LBR_OK


cdef int _write_evtsel(
    lbr_cpu* cpu, uint32_t n, uint64_t value, lbr_fault* fault
) noexcept nogil:
    if lbr_has(cpu, LBR_MODEL_INTEL):
        if value & EVTSEL_IN_TXCP and n != 2:
            return _refuse(fault, "IN_TXCP exists in IA32_PERFEVTSEL2 alone", EVTSEL_IN_TXCP)
        if value & EVTSEL_EN_LBR_LOG and not (cpu.model.config.event_counters >> n) & 1:
            return _refuse(
                fault, "CPUID.1CH:ECX[19:16] offers no event logging for this counter",
                EVTSEL_EN_LBR_LOG)
    cpu.evtsel[n] = value
    lbr_pmu_changed(cpu)
    return LBR_OK


cdef int _write_pmu(
    lbr_cpu* cpu, int accessor, uint32_t n, uint64_t value, lbr_fault* fault
) noexcept nogil:
    if accessor == LBR_ACC_PMC:
        cpu.pmc[n] = _extend(value, 32) & lbr_counter_mask(cpu, 0)
    elif accessor == LBR_ACC_PMC_FULL:
        cpu.pmc[n] = value
    elif accessor == LBR_ACC_FIXED:
        cpu.fixed[n] = value
    elif accessor == LBR_ACC_EVTSEL:
        return _write_evtsel(cpu, n, value, fault)
    elif accessor == LBR_ACC_GLOBAL_STATUS:
        lbr_set_status(cpu, value)
    elif accessor == LBR_ACC_GLOBAL_RESET:
        lbr_set_status(cpu, cpu.status & ~value)
    elif accessor == LBR_ACC_GLOBAL_SET:
        lbr_set_status(cpu, cpu.status | value)
    elif accessor == LBR_ACC_GLOBAL_INUSE:
        if value != lbr_in_use(cpu):
            return _refuse(fault, "the register follows the control registers", 0)
    else:
        if accessor == LBR_ACC_FIXED_CTRL:
            cpu.fixed_ctrl = value
        elif accessor == LBR_ACC_GLOBAL_CTRL:
            cpu.global_ctrl = value
        else:
            cpu.pebs_enable = value
        lbr_pmu_changed(cpu)
    return LBR_OK


cdef int _write(
    lbr_cpu* cpu, const lbr_register* row, uint32_t n, uint64_t value, lbr_fault* fault
) noexcept nogil:
    cdef int accessor = row.accessor
    if row.of_lbr and lbr_has(cpu, LBR_MODEL_PT_EXCLUDES_LBR) and lbr_tracing(cpu):
        return LBR_OK
    if accessor >= LBR_ACC_PMC:
        return _write_pmu(cpu, accessor, n, value, fault)
    if accessor == LBR_ACC_PLAIN:
        cpu.value[row.value] = value & row.writable
    elif accessor == LBR_ACC_CANONICAL:
        if not lbr_is_canonical(value, cpu.model.linear_width):
            return _refuse(fault, "the address is not canonical", value)
        cpu.value[row.value] = value
    elif accessor == LBR_ACC_CONSTANT:
        if value != row.reset:
            return _refuse(fault, "the value is a constant of the model", value ^ row.reset)
    elif accessor == LBR_ACC_CAPABILITIES:
        return _write_capabilities(cpu, row, value, fault)
    elif accessor == LBR_ACC_RTIT:
        cpu.value[row.value] = value
        lbr_sync(cpu)
    elif accessor == LBR_ACC_DEBUGCTL:
        lbr_cpu_set_debugctl(cpu, value & row.writable)
    elif accessor == LBR_ACC_LBR_CTL or accessor == LBR_ACC_LBR_SELECT:
        if lbr_write_ctl(&cpu.lbr, value) != LBR_OK:
            return _refuse(fault, "reserved bits must be 0", value)
    elif accessor == LBR_ACC_LBR_DEPTH:
        if lbr_write_depth(&cpu.lbr, value) != LBR_OK:
            return _refuse(fault, cpu.model.depth_rule, value)
    elif accessor == LBR_ACC_LBR_TOS:
        if lbr_write_tos(&cpu.lbr, <uint32_t> value) != LBR_OK:
            return _refuse(fault, "reserved bits must be 0", value)
    elif accessor == LBR_ACC_AMD_CONFIG:
        lbr_set_enable(&cpu.lbr, value & DBG_EXTN_CFG_LBRV2EN != 0)
    elif accessor == LBR_ACC_LER_FROM or accessor == LBR_ACC_LEGACY_LER_FROM:
        return _write_ler(cpu, 0, value, fault)
    elif accessor == LBR_ACC_LER_TO or accessor == LBR_ACC_LEGACY_LER_TO:
        return _write_ler(cpu, 1, value, fault)
    elif accessor == LBR_ACC_LER_INFO:
        return _write_ler(cpu, 2, value, fault)
    else:
        return _write_record(cpu, accessor, n, value, fault)
    return LBR_OK


# ---------------------------------------------------------------- dispatch

cdef inline bint _beyond_depth(
    const lbr_cpu* cpu, const lbr_register* row, uint32_t n
) noexcept nogil:
    """A record that the present depth does not have."""
    return LBR_ACC_LBR_FROM <= row.accessor <= LBR_ACC_LBR_INFO and n >= cpu.lbr.depth


cdef int _absent(
    const lbr_cpu* cpu, uint32_t index, uint64_t value, bint host, lbr_fault* fault
) noexcept nogil:
    if (host and lbr_has(cpu, LBR_MODEL_HOST_ABSENT_READS_ZERO) and not value
            and lbr_known_elsewhere(index)):
        return LBR_OK
    return _refuse(fault, cpu.model.absent_rule, 0)


cdef inline int _rdmsr(
    const lbr_cpu* cpu, uint32_t index, uint64_t* value, bint host, lbr_fault* fault
) noexcept nogil:
    cdef const lbr_register* row = lbr_register_of(cpu.model, index)
    cdef uint64_t read = 0
    cdef uint32_t n
    cdef int result
    if row == NULL:
        result = _absent(cpu, index, 0, host, fault)
    else:
        n = (index - row.first) // row.stride
        if host and _beyond_depth(cpu, row, n):
            result = LBR_OK
        else:
            result = _read(cpu, row, n, &read, fault)
    if result == LBR_OK:
        value[0] = read
    return result


cdef inline int _wrmsr(
    lbr_cpu* cpu, uint32_t index, uint64_t value, bint host, lbr_fault* fault
) noexcept nogil:
    cdef const lbr_register* row = lbr_register_of(cpu.model, index)
    cdef uint32_t n
    if row == NULL:
        return _absent(cpu, index, value, host, fault)
    if not row.guest_writes and not host:
        return _refuse(fault, "the register is read-only", 0)
    if value & row.reserved:
        return _refuse(fault, "reserved bits must be 0", value & row.reserved)
    n = (index - row.first) // row.stride
    if host and not value and _beyond_depth(cpu, row, n):
        return LBR_OK
    return _write(cpu, row, n, value, fault)


cdef int lbr_rdmsr(
    const lbr_cpu* cpu, uint32_t index, uint64_t* value, lbr_fault* fault
) noexcept nogil:
    return _rdmsr(cpu, index, value, False, fault)


cdef int lbr_wrmsr(
    lbr_cpu* cpu, uint32_t index, uint64_t value, lbr_fault* fault
) noexcept nogil:
    return _wrmsr(cpu, index, value, False, fault)


cdef int lbr_host_rdmsr(
    const lbr_cpu* cpu, uint32_t index, uint64_t* value, lbr_fault* fault
) noexcept nogil:
    return _rdmsr(cpu, index, value, True, fault)


cdef int lbr_host_wrmsr(
    lbr_cpu* cpu, uint32_t index, uint64_t value, lbr_fault* fault
) noexcept nogil:
    return _wrmsr(cpu, index, value, True, fault)


cdef int lbr_xsetbv(lbr_cpu* cpu, uint64_t value, lbr_fault* fault) noexcept nogil:
    """XSETBV of XCR0: components that exist, x87 and whole groups only."""
    cdef uint64_t bad = value & ~cpu.model.xcr0
    cdef uint64_t avx512 = value & 0xE0, amx = value & (<uint64_t> 3 << 17)
    if (bad or not value & 1 or value & 6 == 4 or (avx512 and value & 0xE6 != 0xE6)
            or (amx and amx != <uint64_t> 3 << 17)):
        return _refuse(fault, "components that exist, x87 and whole groups only", bad)
    cpu.xcr0 = value
    return LBR_OK
