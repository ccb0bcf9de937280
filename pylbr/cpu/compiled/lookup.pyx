"""Models by name, registers by number, CPUID: look-ups in the generated tables."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport strcmp

from lbrcore.lbr cimport LBR_GP, LBR_OK
from pylbr.cpu.compiled.tables cimport (
    LBR_ACC_CONSTANT, LBR_ACC_RTIT, LBR_MODEL_INTEL, LBR_VALUE_IA32_XSS, lbr_has, lbr_leaf,
)

cdef extern from "models.c" nogil:
    enum:
        LBR_REGISTERS, LBR_MODELS
    const lbr_register lbr_registers[1]
    const lbr_model lbr_models[1]
    const uint32_t lbr_table_offset[63]
    const uint64_t lbr_table_supervisor

cdef enum:
    ANY_SUBLEAF = -1
    FIRST_EXTENDED = 1 << 31
    XSAVE_LEAF = 0xD
    LEGACY_AREA = 576
    BRACE = 0x7B    # a literal would confuse the indentation of the C


cdef const lbr_model* lbr_model_find(const char* name) noexcept nogil:
    cdef size_t i
    for i in range(<size_t> LBR_MODELS):
        if strcmp(lbr_models[i].name, name) == 0:
            return &lbr_models[i]
    return NULL


cdef const lbr_model* lbr_model_at(size_t i) noexcept nogil:
    return &lbr_models[i] if i < <size_t> LBR_MODELS else NULL


cdef inline bint _holds(const lbr_register* row, uint32_t index) noexcept nogil:
    cdef uint32_t distance = index - row.first
    return (distance < <uint32_t> row.count * row.stride and distance % row.stride == 0)


cdef const lbr_register* lbr_register_of(
    const lbr_model* model, uint32_t index
) noexcept nogil:
    """The row that has MSR `index`, or NULL."""
    cdef const uint8_t* places = model.registers
    cdef size_t low = 0, high = model.registers_count, middle, i
    # The last row that starts at or below it; runs of stride 2 lie within one another, in pairs.
    while low < high:
        middle = (low + high) // 2
        if lbr_registers[places[middle]].first <= index:
            low = middle + 1
        else:
            high = middle
    for i in range(2):
        if low > i and _holds(&lbr_registers[places[low - 1 - i]], index):
            return &lbr_registers[places[low - 1 - i]]
    return NULL


cdef bint lbr_known_elsewhere(uint32_t index) noexcept nogil:
    """Some model has an MSR of that number."""
    cdef size_t i
    for i in range(<size_t> LBR_REGISTERS):
        if _holds(&lbr_registers[i], index):
            return True
    return False


cdef const lbr_register* lbr_kept_register(const lbr_model* model, int value) noexcept nogil:
    """The register that holds `value`, an `enum lbr_value`, or NULL if the model has none."""
    cdef const lbr_register* row
    cdef size_t i
    for i in range(<size_t> model.registers_count):
        row = &lbr_registers[model.registers[i]]
        if row.value == value and row.accessor <= LBR_ACC_RTIT and row.accessor != LBR_ACC_CONSTANT:
            return row
    return NULL


cdef int lbr_msr_name(
    const lbr_model* model, uint32_t index, char* text, size_t size
) noexcept nogil:
    cdef const lbr_register* row = lbr_register_of(model, index)
    cdef const char* at
    cdef size_t n = 0
    cdef uint32_t number
    if size:
        text[0] = 0
    if row == NULL:
        return LBR_GP
    number = (index - row.first) // row.stride
    at = row.name
    while at[0] and n + 3 < size:
        if at[0] == BRACE:
            if number > 9:
                text[n] = <char> (c"0" + number // 10)
                n += 1
            text[n] = <char> (c"0" + number % 10)
            at += 1
        else:
            text[n] = at[0]
        n += 1
        at += 1
    if size:
        text[n if n < size else size - 1] = 0
    return LBR_OK


# ---------------------------------------------------------------- CPUID

cdef uint32_t _compacted_size(const lbr_model* model, uint64_t components) noexcept nogil:
    """Bytes of a compacted XSAVE area."""
    cdef uint32_t end = LEGACY_AREA
    cdef int bit
    for bit in range(2, 63):
        if (components >> bit) & 1:
            if (model.layout.aligned >> bit) & 1:
                end = (end + 63) & ~<uint32_t> 63
            end += model.layout.size[bit]
    return end


cdef uint32_t _standard_size(const lbr_model* model, uint64_t components) noexcept nogil:
    """Bytes of a standard-format area with the user components."""
    cdef uint32_t end = LEGACY_AREA
    cdef int bit
    for bit in range(2, 63):
        if ((components & ~lbr_table_supervisor) >> bit) & 1:
            end = max(end, lbr_table_offset[bit] + model.layout.size[bit])
    return end


cdef int lbr_cpuid(
    const lbr_cpu* cpu, uint32_t leaf, uint32_t subleaf, uint32_t* registers
) noexcept nogil:
    cdef const lbr_model* model = cpu.model
    cdef const lbr_leaf* row
    cdef size_t i
    registers[0] = registers[1] = registers[2] = registers[3] = 0
    if leaf > (model.max_leaf if leaf < <uint32_t> FIRST_EXTENDED else model.max_extended):
        if not lbr_has(cpu, LBR_MODEL_INTEL):
            return LBR_OK
        leaf = model.max_leaf
    for i in range(<size_t> model.leaves_count):
        row = &model.leaves[i]
        if row.leaf == leaf and (row.subleaf == subleaf or row.subleaf == <uint32_t> ANY_SUBLEAF):
            registers[0] |= row.eax
            registers[1] |= row.ebx
            registers[2] |= row.ecx
            registers[3] |= row.edx
    if leaf == XSAVE_LEAF and subleaf == 0 and model.xcr0:
        registers[1] = _standard_size(model, cpu.xcr0)
    elif leaf == XSAVE_LEAF and subleaf == 1 and model.xss:
        registers[1] = _compacted_size(model, cpu.xcr0 | cpu.value[LBR_VALUE_IA32_XSS])
    return LBR_OK
