"""Derived state: what counts, what logs, whether records freeze.  Twin: `Msrs` and `PmuState`."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from lbrcore.control cimport lbr_set_event_mask, lbr_set_frozen
from lbrcore.lbr cimport LBR_FLAG_IN_TSX, LBR_FLAG_MISPRED, lbr_reset
from pylbr.arch.bits cimport (
    EVTSEL_CMASK, EVTSEL_E, EVTSEL_EN, EVTSEL_EN_LBR_LOG, EVTSEL_EVENT, EVTSEL_IN_TX,
    EVTSEL_IN_TXCP, EVTSEL_INT, EVTSEL_INV, EVTSEL_OS, EVTSEL_USR, FIXED_CTRL_EN0_OS,
    FIXED_CTRL_EN0_USR, FIXED_CTRL_PMI0, INUSE_PMI, RTIT_CTL_TRACEEN, STATUS_CTR_FRZ,
    STATUS_LBR_FRZ,
)
from pylbr.cpu.compiled.lookup cimport lbr_kept_register
from pylbr.cpu.compiled.tables cimport (
    LBR_MODEL_INTEL, LBR_MODEL_LEGACY, LBR_MODEL_PT_EXCLUDES_LBR, LBR_NO_BRANCH,
    LBR_VALUE_IA32_RTIT_CTL, LBR_VALUES, lbr_counter, lbr_event, lbr_has, lbr_register,
)
from pylbr.cpu.debugctl cimport lbr_set_debugctl


cdef bint lbr_tracing(const lbr_cpu* cpu) noexcept nogil:
    """Intel PT is on."""
    return (cpu.value[LBR_VALUE_IA32_RTIT_CTL] & RTIT_CTL_TRACEEN) != 0


cdef void lbr_sync(lbr_cpu* cpu) noexcept nogil:
    """Bring the facility's freeze in line with what governs it."""
    lbr_set_frozen(&cpu.lbr, (
        cpu.status & STATUS_LBR_FRZ != 0 or cpu.enclave == OPT_OUT
        or (lbr_has(cpu, LBR_MODEL_PT_EXCLUDES_LBR) and lbr_tracing(cpu))))


# ---------------------------------------------------------------- what counts

cdef uint64_t lbr_counter_mask(const lbr_cpu* cpu, int place) noexcept nogil:
    """The bits that a counter has."""
    cdef uint8_t width = (
        cpu.model.counter_width if place < FIRST_FIXED else cpu.model.fixed_width)
    return ((<uint64_t> 1 << width) - 1) if width < 64 else ~<uint64_t> 0


cdef const lbr_event* _event_of(const lbr_cpu* cpu, uint64_t select) noexcept nogil:
    """What an event select counts, as far as a stream carries it, or NULL."""
    cdef size_t i
    if select & (EVTSEL_E | EVTSEL_INV | EVTSEL_CMASK | EVTSEL_IN_TXCP):
        return NULL
    if not lbr_has(cpu, LBR_MODEL_INTEL) and (select >> 32) & 0xF:
        return NULL
    for i in range(<size_t> cpu.model.events_count):
        if (cpu.model.events[i].select == (select & 0xFF)
                and cpu.model.events[i].umask == ((select >> 8) & 0xFF)):
            return &cpu.model.events[i]
    return NULL


cdef void _arm(
    lbr_cpu* cpu, int place, uint64_t classes, bint user, bint kernel, uint8_t need, uint8_t unit
) noexcept nogil:
    cdef lbr_counter* counter = &cpu.armed[cpu.armed_count]
    counter.table = 0
    if kernel:
        counter.table |= classes
    if user:
        counter.table |= classes << 16 | classes << 32 | classes << 48
    counter.need, counter.unit, counter.place = need, unit, <uint8_t> place
    counter.logs = <uint8_t> ((cpu.logging >> place) & 1 if place < FIRST_FIXED else 0)
    if counter.table:
        cpu.armed_count += 1


cdef uint8_t _logging(const lbr_cpu* cpu) noexcept nogil:
    """Counters whose events go into IA32_LBR_x_INFO, a bit each."""
    cdef uint8_t mask = 0
    cdef int n
    if cpu.stops or cpu.status & STATUS_CTR_FRZ:
        return 0
    for n in range(min(4, <int> cpu.model.counters)):
        if (cpu.evtsel[n] & EVTSEL_EN_LBR_LOG and cpu.evtsel[n] & EVTSEL_EN
                and (cpu.global_ctrl >> n) & 1):
            mask |= <uint8_t> (1 << n)
    return mask


cdef void _arm_all(lbr_cpu* cpu) noexcept nogil:
    cdef uint64_t enabled = cpu.global_ctrl if cpu.model.pmu_version >= 2 else ~<uint64_t> 0
    cdef const lbr_event* event
    cdef uint64_t select
    cdef uint8_t need
    cdef int n
    for n in range(cpu.model.counters):
        select = cpu.evtsel[n]
        if not ((enabled >> n) & 1 and select & EVTSEL_EN):
            continue
        event = _event_of(cpu, select)
        if event != NULL:
            need = LBR_FLAG_IN_TSX if select & EVTSEL_IN_TX else 0
            if event.mispredicted:
                need |= LBR_FLAG_MISPRED
            _arm(cpu, n, event.classes, select & EVTSEL_USR != 0, select & EVTSEL_OS != 0, need,
                 event.unit)
    for n in range(cpu.model.fixed):
        select = cpu.fixed_ctrl >> (4 * n)
        if cpu.model.fixed_classes[n] and (enabled >> (FIRST_FIXED + n)) & 1:
            _arm(cpu, FIRST_FIXED + n, cpu.model.fixed_classes[n],
                 select & FIXED_CTRL_EN0_USR != 0, select & FIXED_CTRL_EN0_OS != 0, 0,
                 cpu.model.fixed_unit[n])


cdef void lbr_pmu_changed(lbr_cpu* cpu) noexcept nogil:
    """What counts or logs has changed."""
    cdef int n
    cpu.logging = _logging(cpu)
    cpu.armed_count = 0
    if not (cpu.stops or cpu.status & STATUS_CTR_FRZ):
        _arm_all(cpu)
    cpu.interrupts = 0
    for n in range(cpu.model.counters):
        if cpu.evtsel[n] & EVTSEL_INT:
            cpu.interrupts |= <uint64_t> 1 << n
    for n in range(cpu.model.fixed):
        if (cpu.fixed_ctrl >> (4 * n)) & FIXED_CTRL_PMI0:
            cpu.interrupts |= <uint64_t> 1 << (FIRST_FIXED + n)
    if cpu.model.config.event_counters:
        lbr_set_event_mask(&cpu.lbr, cpu.logging)


cdef void lbr_set_status(lbr_cpu* cpu, uint64_t value) noexcept nogil:
    """Set IA32_PERF_GLOBAL_STATUS and what follows from it."""
    cdef uint64_t changed = cpu.status ^ value
    cpu.status = value
    if changed & STATUS_CTR_FRZ:
        lbr_pmu_changed(cpu)
    if changed & STATUS_LBR_FRZ:
        lbr_sync(cpu)


cdef void lbr_cpu_set_debugctl(lbr_cpu* cpu, uint64_t value) noexcept nogil:
    """Set IA32_DEBUGCTL and what follows from it."""
    lbr_set_debugctl(&cpu.lbr, &cpu.debugctl, lbr_has(cpu, LBR_MODEL_LEGACY), value)


cdef uint64_t lbr_in_use(const lbr_cpu* cpu) noexcept nogil:
    """IA32_PERF_GLOBAL_INUSE (SDM vol. 4, 392H)."""
    cdef uint64_t value = 0, nibble
    cdef bint pmi = cpu.pebs_enable != 0
    cdef int n
    for n in range(cpu.model.counters):
        if cpu.evtsel[n] & EVTSEL_EVENT:
            value |= <uint64_t> 1 << n
        pmi |= cpu.evtsel[n] & EVTSEL_INT != 0
    for n in range(cpu.model.fixed):
        nibble = cpu.fixed_ctrl >> (4 * n)
        if nibble & (FIXED_CTRL_EN0_OS | FIXED_CTRL_EN0_USR):
            value |= <uint64_t> 1 << (FIRST_FIXED + n)
        pmi |= nibble & FIXED_CTRL_PMI0 != 0
    return value | INUSE_PMI if pmi else value


# ---------------------------------------------------------------- power-up values

cdef void lbr_reset_pmu(lbr_cpu* cpu) noexcept nogil:
    """Values after RESET (SDM vol. 3, table 9-1)."""
    cdef int n
    for n in range(8):
        cpu.pmc[n] = cpu.evtsel[n] = 0
    for n in range(4):
        cpu.fixed[n] = 0
    cpu.fixed_ctrl = cpu.status = cpu.pebs_enable = 0
    cpu.global_ctrl = (
        (<uint64_t> 1 << cpu.model.counters) - 1 if cpu.model.pmu_version >= 2 else 0)
    cpu.stops = 0


cdef void lbr_reset_values(lbr_cpu* cpu) noexcept nogil:
    """The registers that hold a value of their own, and XCR0."""
    cdef const lbr_register* row
    cdef int i
    for i in range(LBR_VALUES):
        row = lbr_kept_register(cpu.model, i)
        cpu.value[i] = row.reset if row != NULL else 0
    cpu.xcr0 = 1


cdef void lbr_power_up(lbr_cpu* cpu) noexcept nogil:
    """Everything after a cold RESET; the model is set."""
    lbr_reset_pmu(cpu)
    lbr_reset_values(cpu)
    cpu.in_smm = cpu.smm_lbren = cpu.smm_held = cpu.enclave = cpu.in_tsx = 0
    cpu.smm_debugctl = cpu.enclave_entry = cpu.cs_base = 0
    cpu.long_mode = 1
    cpu.block, cpu.event_class = NULL, <uint8_t> LBR_NO_BRANCH
    cpu.since, cpu.event_from, cpu.cpl = 0, 0, 0
    lbr_reset(&cpu.lbr)
    lbr_cpu_set_debugctl(cpu, 0)
    lbr_pmu_changed(cpu)
    lbr_sync(cpu)
