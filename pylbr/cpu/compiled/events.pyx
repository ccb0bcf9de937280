"""Life of a processor, the events that touch LBRs, XSAVES.

Twin: ``pylbr.cpu``'s `Processor`, `Smm`, `Enclave` and `Mode`.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from lbrcore.control cimport lbr_set_enable, lbr_write_ctl, lbr_write_tos
from lbrcore.lbr cimport (
    LBR_EABI, LBR_EMODEL, LBR_ENOMEM, LBR_ENOTSUP, LBR_ESIZE, LBR_GP, LBR_OK,
    LBRCORE_ABI_VERSION, lbr_clear, lbr_find_quick, lbr_reset, lbr_write_ler, lbr_entry,
)
from lbrcore.xsave cimport lbr_xrstors, lbr_xsaves
from pylbr.arch.bits cimport (
    CTL_LBREN, DEBUGCTL_BTF, DEBUGCTL_BTS, DEBUGCTL_FREEZE_WHILE_SMM, DEBUGCTL_LBR, DEBUGCTL_TR,
    DEBUGCTLA_BTF, DEBUGCTLA_LBR, DEBUGCTLA_TR, STATUS_ASCI,
)
from pylbr.cpu.compiled.lookup cimport lbr_model_find
from pylbr.cpu.compiled.tables cimport (
    LBR_MODEL_ARCH, LBR_MODEL_DB_CLEARS_ENABLE, LBR_MODEL_DEEP_CSTATE_RESET,
    LBR_MODEL_FREEZE_WHILE_SMM, LBR_MODEL_LEGACY, LBR_MODEL_NETBURST,
    LBR_MODEL_OPT_OUT_STOPS_COUNTERS, LBR_MODEL_SELECT_SURVIVES, LBR_MODEL_SGX,
    LBR_MODEL_SURVIVES_WARM_RESET, LBR_MODEL_TSX, LBR_NO_BRANCH,
    LBR_VALUE_IA32_XSS, lbr_has, lbr_model,
)
from pylbr.cpu.compiled.values cimport (
    OPT_IN, OPT_OUT, STOPPED_BY_ENCLAVE, STOPPED_BY_SMM, lbr_cpu_set_debugctl, lbr_pmu_changed,
    lbr_power_up, lbr_reset_pmu, lbr_reset_values, lbr_set_status, lbr_sync,
)

cdef enum:
    LBR_COMPONENT = 15
    ASCI_FROM = 4      # PMU version that has IA32_PERF_GLOBAL_STATUS.ASCI


# ---------------------------------------------------------------- life

cdef int lbr_cpu_open(
    lbr_cpu** cpu, const char* name, size_t cpu_size, uint32_t abi_version
) noexcept nogil:
    cdef const lbr_model* model
    cpu[0] = NULL
    if abi_version != LBRCORE_ABI_VERSION:
        return LBR_EABI
    if cpu_size and cpu_size != sizeof(lbr_cpu):
        return LBR_ESIZE
    model = lbr_model_find(name)
    if model == NULL:
        return LBR_EMODEL
    cpu[0] = <lbr_cpu*> calloc(1, sizeof(lbr_cpu))
    if cpu[0] == NULL:
        return LBR_ENOMEM
    cpu[0].model = model
    cpu[0].lbr.config = model.config
    lbr_power_up(cpu[0])
    return LBR_OK


cdef void lbr_cpu_destroy(lbr_cpu* cpu) noexcept nogil:
    free(cpu)


cdef void lbr_cpu_copy(lbr_cpu* target, const lbr_cpu* source) noexcept nogil:
    target[0] = source[0]


cdef void lbr_cpu_on_pmi(lbr_cpu* cpu, lbr_pmi_callback callback, void* context) noexcept nogil:
    cpu.on_pmi = callback
    cpu.on_pmi_context = context


cdef void lbr_cpu_set_mode(lbr_cpu* cpu, int long_mode, uint64_t cs_base) noexcept nogil:
    cpu.long_mode = long_mode != 0
    cpu.cs_base = cs_base


cdef int lbr_cpu_set_tsx(lbr_cpu* cpu, int in_transaction) noexcept nogil:
    if not lbr_has(cpu, LBR_MODEL_TSX):
        return LBR_ENOTSUP
    cpu.in_tsx = in_transaction != 0
    return LBR_OK


# ---------------------------------------------------------------- events

cdef inline void _set_lbren(lbr_cpu* cpu, bint on) noexcept nogil:
    lbr_write_ctl(&cpu.lbr, cpu.lbr.ctl & ~<uint64_t> CTL_LBREN | (CTL_LBREN if on else 0))


cdef int lbr_cpu_debug_exception(lbr_cpu* cpu) noexcept nogil:
    """Deliver a #DB: recording is switched off before the handler runs; no record."""
    cdef uint64_t cleared = DEBUGCTL_LBR | DEBUGCTL_BTF | DEBUGCTL_TR
    if lbr_has(cpu, LBR_MODEL_NETBURST):
        cleared = DEBUGCTLA_LBR | DEBUGCTLA_BTF | DEBUGCTLA_TR
    if lbr_has(cpu, LBR_MODEL_ARCH):
        _set_lbren(cpu, False)
    lbr_cpu_set_debugctl(cpu, cpu.debugctl & ~cleared)
    if lbr_has(cpu, LBR_MODEL_DB_CLEARS_ENABLE):
        lbr_set_enable(&cpu.lbr, 0)
    return LBR_OK


cdef inline void _stop(lbr_cpu* cpu, uint8_t cause, bint on) noexcept nogil:
    """Set or clear a reason why no counter counts."""
    if on:
        cpu.stops = <uint8_t> (cpu.stops | cause)
    else:
        cpu.stops = <uint8_t> (cpu.stops & ~<int> cause)
    lbr_pmu_changed(cpu)


cdef int lbr_cpu_smi(lbr_cpu* cpu) noexcept nogil:
    """Enter SMM: LBREn is saved and cleared; FREEZE_WHILE_SMM stops what it stops."""
    if cpu.in_smm:
        return LBR_ENOTSUP
    cpu.in_smm = 1
    if lbr_has(cpu, LBR_MODEL_ARCH):
        cpu.smm_lbren = (cpu.lbr.ctl & CTL_LBREN) != 0
        _set_lbren(cpu, False)
    if cpu.debugctl & DEBUGCTL_FREEZE_WHILE_SMM and lbr_has(cpu, LBR_MODEL_FREEZE_WHILE_SMM):
        cpu.smm_held, cpu.smm_debugctl = 1, cpu.debugctl
        lbr_cpu_set_debugctl(cpu, cpu.debugctl & ~<uint64_t> (
            DEBUGCTL_LBR | DEBUGCTL_BTF | DEBUGCTL_TR | DEBUGCTL_BTS))
        _stop(cpu, STOPPED_BY_SMM, True)
    return LBR_OK


cdef int lbr_cpu_rsm(lbr_cpu* cpu) noexcept nogil:
    """Leave SMM: what the SMI saved comes back, LBREn alone of IA32_LBR_CTL."""
    if not cpu.in_smm:
        return LBR_ENOTSUP
    cpu.in_smm = 0
    if lbr_has(cpu, LBR_MODEL_ARCH):
        _set_lbren(cpu, cpu.smm_lbren)
        cpu.smm_lbren = 0
    if cpu.smm_held:
        lbr_cpu_set_debugctl(cpu, cpu.smm_debugctl)
        cpu.smm_held, cpu.smm_debugctl = 0, 0
        _stop(cpu, STOPPED_BY_SMM, False)
    return LBR_OK


cdef int lbr_cpu_init(lbr_cpu* cpu) noexcept nogil:
    """INIT: no MSR changes."""
    if cpu.in_smm:
        return LBR_ENOTSUP
    cpu.in_tsx = 0
    return LBR_OK


cdef int lbr_cpu_reset(lbr_cpu* cpu, int warm, int in_c6) noexcept nogil:
    """RESET.  A warm one keeps the LBR MSRs, the depth included, but LBREn; out of C6 it is as a
    cold one for the LBRs."""
    cpu.in_smm = cpu.smm_lbren = cpu.smm_held = cpu.enclave = cpu.in_tsx = 0
    cpu.smm_debugctl = cpu.enclave_entry = cpu.cs_base = 0
    cpu.long_mode = 1
    cpu.block, cpu.event_class = NULL, <uint8_t> LBR_NO_BRANCH
    cpu.since, cpu.cpl, cpu.held = 0, 0, 0
    lbr_reset_pmu(cpu)
    if not warm or in_c6 or not lbr_has(cpu, LBR_MODEL_SURVIVES_WARM_RESET):
        lbr_reset(&cpu.lbr)
    elif lbr_has(cpu, LBR_MODEL_ARCH):
        _set_lbren(cpu, False)
    elif not lbr_has(cpu, LBR_MODEL_SELECT_SURVIVES):
        lbr_write_ctl(&cpu.lbr, 0)
    lbr_reset_values(cpu)
    lbr_cpu_set_debugctl(cpu, 0)
    lbr_pmu_changed(cpu)
    lbr_sync(cpu)
    return LBR_OK


cdef int lbr_cpu_mwait(lbr_cpu* cpu, int deep, int lose) noexcept nogil:
    """A power state, deeper than C1 if `deep`, in which the processor does `lose` its LBRs."""
    cdef lbr_entry zero
    if not (deep and lose and lbr_has(cpu, LBR_MODEL_DEEP_CSTATE_RESET)):
        return LBR_OK
    memset(&zero, 0, sizeof(zero))
    lbr_clear(&cpu.lbr)
    lbr_write_ler(&cpu.lbr, &zero)
    cpu.lbr.cycles, cpu.lbr.cycles_valid = 0, 0
    lbr_find_quick(&cpu.lbr)
    if lbr_has(cpu, LBR_MODEL_LEGACY):
        lbr_write_tos(&cpu.lbr, 0)
    return LBR_OK


cdef int lbr_cpu_enclave_enter(lbr_cpu* cpu, uint64_t from_, int opt_in) noexcept nogil:
    """EENTER or ERESUME at `from_`; opt-out: neither it nor what is inside is recorded."""
    if not lbr_has(cpu, LBR_MODEL_SGX) or cpu.enclave:
        return LBR_ENOTSUP
    cpu.enclave, cpu.enclave_entry = <uint8_t> (OPT_IN if opt_in else OPT_OUT), from_
    if opt_in:
        return LBR_OK
    if lbr_has(cpu, LBR_MODEL_OPT_OUT_STOPS_COUNTERS):
        _stop(cpu, STOPPED_BY_ENCLAVE, True)
        if cpu.model.pmu_version >= ASCI_FROM:
            lbr_set_status(cpu, cpu.status | STATUS_ASCI)
    lbr_sync(cpu)
    return LBR_OK


cdef int lbr_cpu_enclave_leave(lbr_cpu* cpu, uint64_t* from_) noexcept nogil:
    """EEXIT or AEX at `from_`, which becomes the FROM that its record has: the entry's if
    opt-out."""
    cdef bint opt_out = cpu.enclave == OPT_OUT
    if not cpu.enclave:
        return LBR_ENOTSUP
    if opt_out:
        from_[0] = cpu.enclave_entry
    cpu.enclave, cpu.enclave_entry = 0, 0
    if opt_out:
        _stop(cpu, STOPPED_BY_ENCLAVE, False)
        lbr_sync(cpu)
    return LBR_OK


# ---------------------------------------------------------------- XSAVES

cdef inline int _before_xsaves(const lbr_cpu* cpu, uint64_t address) noexcept nogil:
    if not (cpu.model.xss >> LBR_COMPONENT) & 1:
        return LBR_ENOTSUP
    return LBR_GP if address % 64 else LBR_OK


cdef int lbr_cpu_xsaves(
    const lbr_cpu* cpu, void* area, size_t size, uint64_t address, uint64_t rfbm, uint64_t xinuse
) noexcept nogil:
    cdef int result = _before_xsaves(cpu, address)
    if result != LBR_OK:
        return result
    return lbr_xsaves(&cpu.lbr, area, size, &cpu.model.layout,
                      rfbm & (cpu.xcr0 | cpu.value[LBR_VALUE_IA32_XSS]), xinuse)


cdef int lbr_cpu_xrstors(
    lbr_cpu* cpu, const void* area, size_t size, uint64_t address, uint64_t rfbm
) noexcept nogil:
    cdef uint64_t enabled = cpu.xcr0 | cpu.value[LBR_VALUE_IA32_XSS]
    cdef int result = _before_xsaves(cpu, address)
    if result != LBR_OK:
        return result
    return lbr_xrstors(&cpu.lbr, area, size, &cpu.model.layout, rfbm & enabled, enabled)
