"""Counting and finding rows of a trace by their small fields, a byte or less a row.

Classes, flags and CPLs are below 16, so that a set of them is a table of 16 bytes and 32 rows
are looked up by one shuffle.  Where that instruction is missing, or columns are not
contiguous, a plain loop does the same.
"""

from libc.string cimport memcpy, memset

from lbrcore.lbr cimport LBR_UNIT_BRANCHES, LBR_UNIT_CYCLES, LBR_UNIT_INSTRUCTIONS
from lbrcore.rows cimport (
    FIELD_CLASS, FIELD_CPL_FROM, FIELD_CYCLES, FIELD_FLAGS, FIELD_INSTRUCTIONS, Rows, lbr_column,
    rows_of,
)

cdef extern from *:
    """
    static inline int lbr_scan_wide(void) {
    #ifdef LBR_AVX2
        return __builtin_cpu_supports("avx2") != 0;
    #else
        return 0;
    #endif
    }

    #ifdef LBR_AVX2
    /* Matching rows of [first, first + 32 * blocks), `columns` tables ANDed. */
    __attribute__((target("avx2"), always_inline))
    static inline uint64_t lbr_count_blocks(
        const lbr_scan *scan, size_t first, size_t blocks, const int columns) {
        const __m256i low = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
        __m256i table[3], total = zero;
        for (int k = 0; k < columns; k++)
            table[k] = _mm256_broadcastsi128_si256(
                _mm_loadu_si128((const __m128i *)scan->table[k]));
        while (blocks) {
            size_t n = blocks < 255 ? blocks : 255;  /* a byte counts to 255 */
            __m256i sum = zero;
            for (size_t i = 0; i < n; i++, first += 32) {
                __m256i match = _mm256_set1_epi8(-1);
                for (int k = 0; k < columns; k++) {
                    __m256i value =
                        _mm256_loadu_si256((const __m256i *)(scan->data[k] + first));
                    value = _mm256_and_si256(value, low);
                    match = _mm256_and_si256(match, _mm256_shuffle_epi8(table[k], value));
                }
                sum = _mm256_sub_epi8(sum, match);
            }
            total = _mm256_add_epi64(total, _mm256_sad_epu8(sum, zero));
            blocks -= n;
        }
        uint64_t part[4];
        memcpy(part, &total, 32);
        return part[0] + part[1] + part[2] + part[3];
    }

    __attribute__((target("avx2")))
    static uint64_t lbr_count_wide(const lbr_scan *scan, size_t first, size_t blocks) {
        if (scan->columns == 1) return lbr_count_blocks(scan, first, blocks, 1);
        if (scan->columns == 2) return lbr_count_blocks(scan, first, blocks, 2);
        return lbr_count_blocks(scan, first, blocks, 3);
    }

    __attribute__((target("avx2"), always_inline))
    static inline uint64_t lbr_mask_32(
        const lbr_scan *scan, size_t first, const int columns) {
        const __m256i low = _mm256_set1_epi8(15);
        __m256i match = _mm256_set1_epi8(-1);
        for (int k = 0; k < columns; k++) {
            __m256i table = _mm256_broadcastsi128_si256(
                _mm_loadu_si128((const __m128i *)scan->table[k]));
            __m256i value = _mm256_loadu_si256((const __m256i *)(scan->data[k] + first));
            value = _mm256_and_si256(value, low);
            match = _mm256_and_si256(match, _mm256_shuffle_epi8(table, value));
        }
        return (uint32_t)_mm256_movemask_epi8(match);
    }

    __attribute__((target("avx2")))
    static uint64_t lbr_mask_wide(const lbr_scan *scan, size_t first) {
        const int n = scan->columns;
        if (n == 1)
            return lbr_mask_32(scan, first, 1) | lbr_mask_32(scan, first + 32, 1) << 32;
        return lbr_mask_32(scan, first, n) | lbr_mask_32(scan, first + 32, n) << 32;
    }
    #else
    static uint64_t lbr_mask_wide(const lbr_scan *scan, size_t first) {
        (void)scan, (void)first;
        return 0;
    }

    static uint64_t lbr_count_wide(const lbr_scan *scan, size_t first, size_t blocks) {
        (void)scan, (void)first, (void)blocks;
        return 0;
    }
    #endif

    static uint64_t lbr_sum_u32(const uint32_t *column, size_t n) {
        uint64_t sum = 0;
        for (size_t i = 0; i < n; i++) sum += column[i];
        return sum;
    }
    """
    int lbr_scan_wide() noexcept nogil
    uint64_t lbr_count_wide(const lbr_scan* scan, size_t first, size_t blocks) noexcept nogil
    uint64_t lbr_mask_wide(const lbr_scan* scan, size_t first) noexcept nogil
    int __builtin_clzll(unsigned long long value) noexcept nogil
    uint64_t lbr_sum_u32(const uint32_t* column, size_t n) noexcept nogil

cdef enum:
    WIDE = 32       # rows a vector
    FAR = 4096      # rows that a search steps over at once
    NEAR = 256


cdef bint _all_set(const uint8_t* table, int values) noexcept nogil:
    cdef int i
    for i in range(values):
        if not table[i]:
            return False
    return True


cdef void _bind(
    lbr_scan* scan, const lbr_column* column, const uint8_t* table, int values
) noexcept nogil:
    """Take one column into the scan, unless all its values match."""
    cdef int k = scan.columns, i
    if column.stride == 0:
        if not table[(<const uint8_t*> column.data)[0] & (values - 1)]:
            scan.never = 1
        return
    if _all_set(table, values):
        return
    scan.data[k] = <const uint8_t*> column.data
    scan.stride[k] = column.stride
    scan.by_address[k] = column.by_address
    for i in range(16):
        scan.table[k][i] = table[i & (values - 1)]
    if column.stride != 1 or column.by_address:
        scan.contiguous = 0
    scan.columns += 1


cdef void lbr_scan_rows(
    lbr_scan* scan, const lbr_rows* rows, const lbr_predicate* predicate
) noexcept nogil:
    cdef const lbr_column* weight = NULL
    memset(scan, 0, sizeof(lbr_scan))
    scan.contiguous = 1
    scan.wide = <uint8_t> lbr_scan_wide()
    _bind(scan, &rows.column[FIELD_CLASS], predicate.classes, 16)
    _bind(scan, &rows.column[FIELD_FLAGS], predicate.flags, 8)
    _bind(scan, &rows.column[predicate.cpl_field], predicate.cpls, 4)
    if predicate.unit == LBR_UNIT_INSTRUCTIONS:
        weight = &rows.column[FIELD_INSTRUCTIONS]
    elif predicate.unit == LBR_UNIT_CYCLES:
        weight = &rows.column[FIELD_CYCLES]
    if weight != NULL:
        scan.weight = weight.data
        scan.weight_stride = weight.stride


cdef inline bint _matches(const lbr_scan* scan, size_t i) noexcept nogil:
    cdef uint8_t value, match = 0 if scan.never else 0xFF
    cdef int k
    for k in range(scan.columns):
        value = scan.data[k][i * scan.stride[k]]
        if scan.by_address[k]:
            value = 0 if value & 0x80 else 3
        match &= scan.table[k][value & 15]
    return match != 0


cdef inline uint64_t _weight(const lbr_scan* scan, size_t i) noexcept nogil:
    cdef uint32_t weight = 1
    if scan.weight != NULL:
        memcpy(&weight, scan.weight + i * scan.weight_stride, 4)
    return weight if _matches(scan, i) else 0


cdef uint64_t _count_column(
    const uint8_t* data, size_t stride, const uint8_t* table, size_t first, size_t last
) noexcept nogil:
    """Rows that match in one column of any stride."""
    cdef uint64_t total = 0
    cdef size_t i
    for i in range(first, last):
        total += table[data[i * stride] & 15] & 1
    return total


cdef uint64_t lbr_total(const lbr_scan* scan, size_t first, size_t last) noexcept nogil:
    cdef uint64_t total = 0
    cdef size_t blocks
    if scan.never:
        return 0
    if scan.weight == NULL:
        if scan.columns == 0:
            return last - first
        if scan.contiguous and scan.wide:
            blocks = (last - first) // WIDE
            total = lbr_count_wide(scan, first, blocks)
            first += blocks * WIDE
        elif scan.columns == 1 and not scan.by_address[0]:
            return _count_column(scan.data[0], scan.stride[0], scan.table[0], first, last)
    elif scan.columns == 0 and scan.weight_stride == 4:
        return lbr_sum_u32(<const uint32_t*> scan.weight + first, last - first)
    while first < last:
        total += _weight(scan, first)
        first += 1
    return total


cdef size_t lbr_find(
    const lbr_scan* scan, size_t first, size_t last, int64_t* need
) noexcept nogil:
    cdef uint64_t total
    cdef size_t step = FAR
    if scan.never or (scan.columns == 0 and scan.weight == NULL):
        total = 0 if scan.never else last - first
        if <int64_t> total < need[0]:
            need[0] -= <int64_t> total
            return last
        first += <size_t> (need[0] - 1)
        need[0] = 0
        return first
    while step > 1:
        # Over whole steps first, then within the one that holds the row.
        while last - first >= step:
            total = lbr_total(scan, first, first + step)
            if <int64_t> total >= need[0]:
                break
            need[0] -= <int64_t> total
            first += step
        step = NEAR if step == FAR else (WIDE if step == NEAR else 1)
    while first < last:
        need[0] -= <int64_t> _weight(scan, first)
        if need[0] <= 0:
            return first
        first += 1
    return last


cdef uint64_t lbr_mask(const lbr_scan* scan, size_t first, size_t count) noexcept nogil:
    cdef uint64_t mask = 0
    cdef size_t i
    if scan.columns and count == 64 and scan.contiguous and scan.wide and not scan.never:
        return lbr_mask_wide(scan, first)
    for i in range(count):
        mask |= <uint64_t> _matches(scan, first + i) << i
    return mask


cdef size_t lbr_last_rows(
    const lbr_scan* scan, size_t first, size_t last, size_t wanted, size_t* rows
) noexcept nogil:
    cdef size_t found = 0, count
    cdef uint64_t mask
    cdef int bit
    if scan.never:
        return 0
    if scan.columns == 0:
        found = min(wanted, last - first)
        for count in range(found):
            rows[count] = last - 1 - count
        return found
    while last > first and found < wanted:
        count = min(last - first, <size_t> 64)
        last -= count
        mask = lbr_mask(scan, last, count)
        while mask and found < wanted:
            bit = 63 - __builtin_clzll(mask)
            rows[found] = last + <size_t> bit
            found += 1
            mask ^= <uint64_t> 1 << bit
    return found


cdef void lbr_set_table(uint8_t* table, uint64_t members) noexcept nogil:
    cdef int i
    for i in range(16):
        table[i] = 0xFF if (members >> i) & 1 else 0


# ---------------------------------------------------------------- Python

cdef lbr_scan _scan(Rows rows, event) except *:
    cdef lbr_predicate predicate = lbr_predicate_of(event)
    cdef lbr_scan scan
    lbr_scan_rows(&scan, &rows.rows, &predicate)
    return scan


cdef lbr_predicate lbr_predicate_of(object event) except *:
    cdef lbr_predicate predicate
    lbr_set_table(predicate.classes, event.classes)
    lbr_set_table(predicate.flags, event.flags)
    lbr_set_table(predicate.cpls, event.cpls)
    predicate.cpl_field = FIELD_CPL_FROM
    predicate.unit = event.unit
    return predicate


def total(branches not None, event not None, first=0, last=None):
    """What an event counts over rows `first` to `last`, exclusive."""
    cdef Rows rows = rows_of(branches)
    cdef lbr_scan scan = _scan(rows, event)
    cdef size_t start, stop
    cdef uint64_t result = 0
    start, stop, _ = slice(first, last).indices(rows.rows.count)
    if start < stop:
        with nogil:
            result = lbr_total(&scan, start, stop)
    return result


def find(branches not None, event not None, int64_t need, first=0, last=None):
    """The row at which the count over rows `first` to `last` reaches `need`, or None."""
    cdef Rows rows = rows_of(branches)
    cdef lbr_scan scan = _scan(rows, event)
    cdef size_t start, stop, row
    if need < 1:
        raise ValueError(f"need: must be at least 1, not {need}")
    start, stop, _ = slice(first, last).indices(rows.rows.count)
    if start >= stop:
        return None
    with nogil:
        row = lbr_find(&scan, start, stop, &need)
    return None if need > 0 else row


def last_rows(branches not None, event not None, count, first=0, last=None):
    """The last `count` rows, at most 64, of `first` to `last` that count; newest first."""
    cdef Rows rows = rows_of(branches)
    cdef lbr_scan scan = _scan(rows, event)
    cdef size_t start, stop, found = 0
    cdef size_t row[64]
    if not 0 <= count <= 64:
        raise ValueError(f"count: must be 0 to 64, not {count}")
    if event.unit != LBR_UNIT_BRANCHES:
        raise ValueError("event: must be one that a branch counts once")
    start, stop, _ = slice(first, last).indices(rows.rows.count)
    if start < stop:
        found = lbr_last_rows(&scan, start, stop, count, row)
    return [row[i] for i in range(found)]
