"""The state of a processor as bytes: the format of docs/state.md.  Twin: ``pylbr.cpu.saved.codec``.

Such bytes need not be trusted: sizes are checked before they are used, sections come
once and in order, every value passes the checks of a WRMSR by the host, and what is refused leaves
the processor as it was.  Sections of VMX are refused: the processor here has none.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from lbrcore.control cimport lbr_set_enable, lbr_write_ctl, lbr_write_depth, lbr_write_tos
from lbrcore.lbr cimport (
    CYC_CNT_MAX, LBR_ESHORT, LBR_ESTATE, LBR_OK, lbr_entry, lbr_find_quick,
    lbr_read_entry, lbr_read_ler, lbr_write_entry, lbr_write_ler,
)
from pylbr.arch.bits cimport (
    IA32_FIXED_CTR_CTRL, IA32_PEBS_ENABLE, IA32_PERF_GLOBAL_CTRL, IA32_PERF_GLOBAL_STATUS,
    IA32_PERFEVTSEL0, IA32_DEBUGCTL, PERF_CNTR_GLOBAL_CTL, PERF_CNTR_GLOBAL_STATUS, PERF_CTL0,
)
from pylbr.cpu.compiled.lookup cimport lbr_kept_register, lbr_register_of
from pylbr.cpu.compiled.msr cimport lbr_host_wrmsr, lbr_xsetbv
from pylbr.cpu.compiled.tables cimport (
    LBR_ACC_RTIT, LBR_ACC_CONSTANT, LBR_MODEL_AMD, LBR_MODEL_ARCH, LBR_MODEL_SGX, LBR_MODEL_TSX,
    LBR_STATE_MAX, LBR_VALUES, lbr_has, lbr_register,
)
from pylbr.cpu.compiled.values cimport (
    OPT_OUT, STOPPED_BY_ENCLAVE, STOPPED_BY_SMM, lbr_counter_mask, lbr_cpu_set_debugctl,
    lbr_pmu_changed, lbr_power_up, lbr_sync,
)

cdef enum:
    HEADER = 24      # magic, version, 0, payload bytes, CRC-32 of them, 0
    SECTION = 8      # tag, 0, body bytes
    VERSION = 1
    MODEL_TAG = 1
    LBR_TAG = 2
    PMU_TAG = 3
    VALUES_TAG = 4
    CORE_TAG = 5
    LBR_HEAD = 56
    ENTRY = 24
    PMU_HEAD = 40
    PAIR = 12
    CORE_SIZE = 44
    MOST_PAIRS = 256
    # Flags of CORE
    IN_SMM = 1
    SMM_LBREN = 2
    IN_TSX = 4
    LONG_MODE = 8
    SMM_HELD = 16
    ENCLAVE_SHIFT = 5

cdef extern from *:
    """
    #define LBR_NO_CYCLES 0xFFFFFFFFu
    """
    const uint32_t NO_CYCLES "LBR_NO_CYCLES"

ctypedef struct Bytes:
    uint8_t* data
    size_t at
    size_t end
    bint failed     # something did not fit


cdef uint32_t _crc32(const uint8_t* data, size_t size) noexcept nogil:
    """As zlib's."""
    cdef uint32_t crc = ~<uint32_t> 0
    cdef size_t i
    cdef int left
    for i in range(size):
        crc ^= data[i]
        left = 8
        while left:
            crc = (crc >> 1) ^ (<uint32_t> 0xEDB88320 & -(crc & 1))
            left -= 1
    return ~crc


# ---------------------------------------------------------------- to bytes

cdef void _put(Bytes* out, const void* data, size_t size) noexcept nogil:
    if out.failed or size > out.end - out.at:
        out.failed = True
    else:
        memcpy(out.data + out.at, data, size)
        out.at += size


cdef void _put8(Bytes* out, uint8_t value) noexcept nogil:
    _put(out, &value, 1)


cdef void _put16(Bytes* out, uint16_t value) noexcept nogil:
    _put(out, &value, 2)


cdef void _put32(Bytes* out, uint32_t value) noexcept nogil:
    _put(out, &value, 4)


cdef void _put64(Bytes* out, uint64_t value) noexcept nogil:
    _put(out, &value, 8)


cdef void _section(Bytes* out, int tag, size_t size) noexcept nogil:
    _put16(out, <uint16_t> tag)
    _put16(out, 0)
    _put32(out, <uint32_t> size)


cdef void _put_lbr(Bytes* out, const lbr_cpu* cpu) noexcept nogil:
    cdef uint32_t depth = cpu.lbr.depth, i
    cdef lbr_entry entry
    _section(out, LBR_TAG, LBR_HEAD + ENTRY * depth)
    _put64(out, cpu.lbr.ctl)
    _put32(out, depth)
    _put32(out, <uint32_t> (0 if lbr_has(cpu, LBR_MODEL_ARCH) else cpu.lbr.head & (depth - 1)))
    _put16(out, <uint16_t> depth)
    _put8(out, cpu.lbr.enable if lbr_has(cpu, LBR_MODEL_AMD) else 0)
    _put8(out, cpu.lbr.xinuse)
    if cpu.lbr.cycles_valid:
        _put32(out, <uint32_t> min(cpu.lbr.cycles, <uint64_t> CYC_CNT_MAX))
    else:
        _put32(out, NO_CYCLES)
    lbr_read_ler(&cpu.lbr, &entry)
    _put(out, &entry, sizeof(entry))
    _put(out, &cpu.lbr.events[0], 4)
    _put32(out, 0)
    for i in range(depth):
        lbr_read_entry(&cpu.lbr, i, &entry)
        _put(out, &entry, sizeof(entry))


cdef void _put_pmu(Bytes* out, const lbr_cpu* cpu) noexcept nogil:
    cdef size_t counters = cpu.model.counters, fixed = cpu.model.fixed
    _section(out, PMU_TAG, PMU_HEAD + 8 * (2 * counters + fixed))
    _put8(out, <uint8_t> counters)
    _put8(out, <uint8_t> fixed)
    _put16(out, 0)
    _put32(out, 0)
    _put64(out, cpu.fixed_ctrl)
    _put64(out, cpu.global_ctrl)
    _put64(out, cpu.status)
    _put64(out, cpu.pebs_enable)
    _put(out, &cpu.pmc[0], 8 * counters)
    _put(out, &cpu.evtsel[0], 8 * counters)
    _put(out, &cpu.fixed[0], 8 * fixed)


cdef const lbr_register* _next_value(const lbr_cpu* cpu, uint32_t above) noexcept nogil:
    """The register with a value of its own, other than at reset, of the lowest number above."""
    cdef const lbr_register* row
    cdef const lbr_register* found = NULL
    cdef int i
    for i in range(LBR_VALUES):
        row = lbr_kept_register(cpu.model, i)
        if (row != NULL and row.first > above and cpu.value[i] != row.reset
                and (found == NULL or row.first < found.first)):
            found = row
    return found


cdef void _put_values(Bytes* out, const lbr_cpu* cpu) noexcept nogil:
    cdef const lbr_register* row = _next_value(cpu, 0)
    cdef size_t start = out.at
    cdef uint32_t count = 0, size
    _section(out, VALUES_TAG, 0)
    _put32(out, 0)
    while row != NULL:
        _put32(out, row.first)
        _put64(out, cpu.value[row.value])
        count += 1
        row = _next_value(cpu, row.first)
    if not out.failed:
        size = 4 + PAIR * count
        memcpy(out.data + start + 4, &size, 4)
        memcpy(out.data + start + SECTION, &count, 4)


cdef void _put_core(Bytes* out, const lbr_cpu* cpu) noexcept nogil:
    cdef uint32_t flags = <uint32_t> cpu.enclave << ENCLAVE_SHIFT
    if cpu.in_smm:
        flags |= IN_SMM
    if cpu.smm_lbren:
        flags |= SMM_LBREN
    if cpu.in_tsx:
        flags |= IN_TSX
    if cpu.long_mode:
        flags |= LONG_MODE
    if cpu.smm_held:
        flags |= SMM_HELD
    _section(out, CORE_TAG, CORE_SIZE)
    _put64(out, cpu.debugctl)
    _put64(out, cpu.xcr0)
    _put64(out, cpu.smm_debugctl)
    _put64(out, cpu.enclave_entry)
    _put64(out, cpu.cs_base)
    _put32(out, flags)


cdef int lbr_cpu_save(const lbr_cpu* cpu, void* data, size_t size, size_t* used) noexcept nogil:
    cdef uint8_t[4096] room
    cdef Bytes out
    cdef uint32_t payload, crc
    out.data, out.at, out.end, out.failed = room, 0, sizeof(room), False
    used[0] = 0
    _put(&out, b"PYLBRCPU", 8)
    _put16(&out, VERSION)
    _put16(&out, 0)
    _put32(&out, 0)
    _put32(&out, 0)
    _put32(&out, 0)
    _section(&out, MODEL_TAG, strlen(cpu.model.name))
    _put(&out, cpu.model.name, strlen(cpu.model.name))
    _put_lbr(&out, cpu)
    _put_pmu(&out, cpu)
    _put_values(&out, cpu)
    _put_core(&out, cpu)
    if out.failed or out.at > size:
        return LBR_ESHORT
    payload = <uint32_t> (out.at - HEADER)
    crc = _crc32(room + HEADER, payload)
    memcpy(room + 12, &payload, 4)
    memcpy(room + 16, &crc, 4)
    memcpy(data, room, out.at)
    used[0] = out.at
    return LBR_OK


# ---------------------------------------------------------------- from bytes

cdef uint64_t _take(Bytes* from_, size_t size) noexcept nogil:
    """The next `size` bytes as a number; 0 where they end."""
    cdef uint64_t value = 0
    if from_.failed or size > from_.end - from_.at:
        from_.failed = True
        return 0
    memcpy(&value, from_.data + from_.at, size)
    from_.at += size
    return value


cdef bint _fits(const lbr_cpu* cpu, uint32_t index, uint64_t value) noexcept nogil:
    """A value without reserved bits of a register that the model has."""
    cdef const lbr_register* row = lbr_register_of(cpu.model, index)
    return row != NULL and not value & row.reserved


cdef bint _load_values(lbr_cpu* cpu, Bytes* body) noexcept nogil:
    cdef uint64_t count = _take(body, 4), value
    cdef const lbr_register* row
    cdef uint32_t index
    if count > MOST_PAIRS:
        return False
    while count:
        count -= 1
        index = <uint32_t> _take(body, 4)
        value = _take(body, 8)
        row = lbr_register_of(cpu.model, index)
        if (body.failed or row == NULL or row.accessor > LBR_ACC_RTIT
                or row.accessor == LBR_ACC_CONSTANT
                or lbr_host_wrmsr(cpu, index, value, NULL) != LBR_OK):
            return False
    return True


cdef bint _load_pmu(lbr_cpu* cpu, Bytes* body) noexcept nogil:
    cdef uint64_t counters = _take(body, 1), fixed = _take(body, 1)
    cdef uint64_t zero = _take(body, 2) | _take(body, 4)
    cdef bint amd = lbr_has(cpu, LBR_MODEL_AMD)
    cdef int n
    if zero or counters != cpu.model.counters or fixed != cpu.model.fixed:
        return False
    cpu.fixed_ctrl, cpu.global_ctrl = _take(body, 8), _take(body, 8)
    cpu.status, cpu.pebs_enable = _take(body, 8), _take(body, 8)
    for n in range(<int> counters):
        cpu.pmc[n] = _take(body, 8)
    for n in range(<int> counters):
        cpu.evtsel[n] = _take(body, 8)
    for n in range(<int> fixed):
        cpu.fixed[n] = _take(body, 8)
        if cpu.fixed[n] & ~lbr_counter_mask(cpu, 32):
            return False
    for n in range(<int> counters):
        if cpu.pmc[n] & ~lbr_counter_mask(cpu, 0) or not _fits(
                cpu, <uint32_t> (PERF_CTL0 if amd else IA32_PERFEVTSEL0)
                + <uint32_t> (2 * n if amd else n), cpu.evtsel[n]):
            return False
    if cpu.fixed_ctrl and not _fits(cpu, IA32_FIXED_CTR_CTRL, cpu.fixed_ctrl):
        return False
    if cpu.global_ctrl and not _fits(
            cpu, <uint32_t> (PERF_CNTR_GLOBAL_CTL if amd else IA32_PERF_GLOBAL_CTRL),
            cpu.global_ctrl):
        return False
    if cpu.status and not _fits(
            cpu, <uint32_t> (PERF_CNTR_GLOBAL_STATUS if amd else IA32_PERF_GLOBAL_STATUS),
            cpu.status):
        return False
    if cpu.pebs_enable and not _fits(cpu, IA32_PEBS_ENABLE, cpu.pebs_enable):
        return False
    return not body.failed


cdef inline uint8_t _flag(uint64_t flags, uint64_t which) noexcept nogil:
    return <uint8_t> (flags & which != 0)


cdef bint _load_core(lbr_cpu* cpu, Bytes* body) noexcept nogil:
    cdef uint64_t debugctl = _take(body, 8), xcr0 = _take(body, 8), smm_debugctl = _take(body, 8)
    cdef uint64_t entry = _take(body, 8), cs_base = _take(body, 8), flags = _take(body, 4)
    cdef uint64_t enclave = flags >> ENCLAVE_SHIFT
    if body.failed or enclave > OPT_OUT or (smm_debugctl and not flags & SMM_HELD):
        return False
    if flags & (SMM_LBREN | SMM_HELD) and not flags & IN_SMM:
        return False
    if not _fits(cpu, IA32_DEBUGCTL, debugctl) or not _fits(cpu, IA32_DEBUGCTL, smm_debugctl):
        return False
    if lbr_has(cpu, LBR_MODEL_ARCH) and debugctl & 1:
        return False
    if enclave and not lbr_has(cpu, LBR_MODEL_SGX):
        return False
    if flags & IN_TSX and not lbr_has(cpu, LBR_MODEL_TSX):
        return False
    if xcr0 != 1 and lbr_xsetbv(cpu, xcr0, NULL) != LBR_OK:
        return False
    cpu.in_smm, cpu.smm_lbren = _flag(flags, IN_SMM), _flag(flags, SMM_LBREN)
    cpu.smm_held, cpu.smm_debugctl = _flag(flags, SMM_HELD), smm_debugctl
    cpu.in_tsx, cpu.long_mode = _flag(flags, IN_TSX), _flag(flags, LONG_MODE)
    cpu.enclave, cpu.enclave_entry, cpu.cs_base = <uint8_t> enclave, entry, cs_base
    cpu.stops = STOPPED_BY_SMM if cpu.smm_held else 0
    if enclave == OPT_OUT:
        cpu.stops |= STOPPED_BY_ENCLAVE
    lbr_cpu_set_debugctl(cpu, debugctl)
    return True


cdef bint _load_lbr(lbr_cpu* cpu, Bytes* body) noexcept nogil:
    """Last: it needs what governs recording."""
    cdef uint64_t ctl = _take(body, 8), depth = _take(body, 4), tos = _take(body, 4)
    cdef uint64_t count = _take(body, 2), enable = _take(body, 1), xinuse = _take(body, 1)
    cdef uint64_t cycles = _take(body, 4), events, zero
    cdef lbr_entry entry, ler
    cdef bint arch = lbr_has(cpu, LBR_MODEL_ARCH)
    cdef size_t i
    ler.from_, ler.to, ler.info = _take(body, 8), _take(body, 8), _take(body, 8)
    events, zero = _take(body, 4), _take(body, 4)
    if body.failed or zero or enable > 1 or xinuse > 1 or events & ~<uint64_t> 0x03030303:
        return False
    if cycles > CYC_CNT_MAX and cycles != NO_CYCLES:
        return False
    if arch and lbr_write_depth(&cpu.lbr, depth) != LBR_OK:
        return False
    if depth != cpu.lbr.depth or count != depth or lbr_write_ctl(&cpu.lbr, ctl) != LBR_OK:
        return False
    if arch and (tos or enable):
        return False
    if not arch and lbr_write_tos(&cpu.lbr, <uint32_t> tos) != LBR_OK:
        return False
    if lbr_has(cpu, LBR_MODEL_AMD):
        lbr_set_enable(&cpu.lbr, <int> enable)
    for i in range(<size_t> count):
        entry.from_, entry.to, entry.info = _take(body, 8), _take(body, 8), _take(body, 8)
        lbr_write_entry(&cpu.lbr, <uint32_t> i, &entry)
    lbr_write_ler(&cpu.lbr, &ler)
    lbr_sync(cpu)
    lbr_pmu_changed(cpu)
    cpu.lbr.cycles = 0 if cycles == NO_CYCLES else cycles
    cpu.lbr.cycles_valid = cycles != NO_CYCLES
    lbr_find_quick(&cpu.lbr)
    memcpy(&cpu.lbr.events[0], &events, 4)
    cpu.lbr.xinuse = <uint8_t> xinuse
    return not body.failed


cdef bint _load_section(lbr_cpu* cpu, int tag, Bytes* body) noexcept nogil:
    cdef bint good
    if tag == VALUES_TAG:
        good = _load_values(cpu, body)
    elif tag == PMU_TAG:
        good = _load_pmu(cpu, body)
    elif tag == CORE_TAG:
        good = _load_core(cpu, body)
    else:
        good = _load_lbr(cpu, body)
    return good and not body.failed and body.at == body.end


cdef int lbr_cpu_load(lbr_cpu* cpu, const void* data, size_t size) noexcept nogil:
    cdef lbr_cpu loaded
    cdef Bytes all_
    cdef Bytes sections[6]
    cdef int tag, last = 0
    cdef uint64_t length, crc, zero
    all_.data, all_.at, all_.end, all_.failed = <uint8_t*> data, 8, size, False
    if size < HEADER or size > <size_t> LBR_STATE_MAX or memcmp(data, b"PYLBRCPU", 8):
        return LBR_ESTATE
    if _take(&all_, 4) != VERSION:
        return LBR_ESTATE
    length, crc, zero = _take(&all_, 4), _take(&all_, 4), _take(&all_, 4)
    if zero or length != size - HEADER or crc != _crc32(all_.data + HEADER, size - HEADER):
        return LBR_ESTATE
    while all_.at < all_.end:
        tag = <int> _take(&all_, 2)
        zero, length = _take(&all_, 2), _take(&all_, 4)
        if (all_.failed or zero or tag != last + 1 or tag > CORE_TAG
                or length > all_.end - all_.at):
            return LBR_ESTATE
        sections[tag] = all_
        sections[tag].end = all_.at + <size_t> length
        all_.at += <size_t> length
        last = tag
    length = strlen(cpu.model.name)
    if (last != CORE_TAG or sections[MODEL_TAG].end - sections[MODEL_TAG].at != length
            or memcmp(all_.data + sections[MODEL_TAG].at, cpu.model.name, length)):
        return LBR_ESTATE
    memset(&loaded, 0, sizeof(loaded))
    loaded.model, loaded.lbr.config = cpu.model, cpu.model.config
    loaded.on_pmi, loaded.on_pmi_context = cpu.on_pmi, cpu.on_pmi_context
    lbr_power_up(&loaded)
    if not (_load_section(&loaded, VALUES_TAG, &sections[VALUES_TAG])
            and _load_section(&loaded, PMU_TAG, &sections[PMU_TAG])
            and _load_section(&loaded, CORE_TAG, &sections[CORE_TAG])
            and _load_section(&loaded, LBR_TAG, &sections[LBR_TAG])):
        return LBR_ESTATE
    cpu[0] = loaded
    return LBR_OK
