"""Hexadecimal and decimal numbers in text, eight digits at once.

A 64-bit word of ASCII becomes nibbles, is checked by encoding them again, and the nibbles are
drawn together by three shifts.  With AVX2 whole entries are read, both addresses at once, by byte
shuffles and multiplications.  Every function may read up to 64 bytes from where it begins.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #define LBR_ONES 0x0101010101010101ULL
    #define LBR_HIGH 0x8080808080808080ULL
    #define LBR_SLASHES 0x2F2F2F2F2F2F2F2FULL
    #define LBR_ZEROS 0x3030303030303030ULL
    #define LBR_LOW_NIBBLES 0x0F0F0F0F0F0F0F0FULL
    #define LBR_HIGH_NIBBLES 0xF0F0F0F0F0F0F0F0ULL
    #define LBR_BELOW_10 0x7676767676767676ULL
    #define LBR_EVERY_2ND 0x00FF00FF00FF00FFULL
    #define LBR_EVERY_4TH 0x0000FFFF0000FFFFULL
    #define LBR_SIX_BYTES 0x0000FFFFFFFFFFFFULL
    #define LBR_PREDICTED 0x00002F2D2F2D2F50ULL
    #define LBR_MISSED 0x00002F2D2F2D2F4DULL
    #define LBR_FNV_BASE 0xCBF29CE484222325ULL
    #define LBR_FNV_PRIME 0x100000001B3ULL

    /* Short names of types at the places that a multiplication gives them, and their bits. */
    typedef struct {
        uint64_t factor, names[256], bits[256];
    } lbr_type_table;

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>

    static int lbr_digits_wide(void) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
    }

    /*
     * Entries as perf mostly prints them, 0xFROM/0xTO/[PM]/-/-/CYCLES[/[TYPE[/-]]], a blank after
     * each but the last: how many; `text` moves on to the first of another form, or to `end`.
     * One loop for all, so that the constants stay in registers.
     */
    __attribute__((target("avx2,bmi")))
    static size_t lbr_plain_entries(
        const uint8_t **text, const uint8_t *end, uint64_t *out, size_t room,
        const lbr_type_table *types) {
        /* Loaded from place n, it moves n digits to the end of a lane and clears the rest. */
        static const uint8_t to_end[32] = {
            128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const __m256i slash = _mm256_set1_epi8('/'), blank = _mm256_set1_epi8(' ');
        const __m256i zero = _mm256_set1_epi8('0'), nine = _mm256_set1_epi8(9);
        const __m256i small = _mm256_set1_epi8(32), letter_a = _mm256_set1_epi8('a');
        const __m256i five = _mm256_set1_epi8(5), ten = _mm256_set1_epi8(10);
        const __m256i pairs = _mm256_set1_epi16(0x0110);
        const uint8_t *at = *text;
        size_t count = 0;
        for (; count < room && at < end; count++, out += 3) {
            __m256i a = _mm256_loadu_si256((const __m256i *)at), digit, letter, valid, nibble;
            __m256i b = _mm256_loadu_si256((const __m256i *)(at + 32));
            uint64_t slashes =
                (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, slash))
                | (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b, slash)) << 32;
            uint64_t blanks =
                (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, blank))
                | (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b, blank)) << 32;
            uint64_t stops = blanks, word, others, flags;
            uint32_t first, second, size, digits, marks, wanted;
            uint16_t prefix, other;
            const uint8_t *next, *rest;
            if (end - at < 64)
                stops |= 1ULL << (end - at);
            if (!(slashes & (slashes - 1)) || !stops)
                break;
            first = (uint32_t)__builtin_ctzll(slashes) - 2;
            second = (uint32_t)__builtin_ctzll(slashes & (slashes - 1)) - first - 5;
            size = (uint32_t)__builtin_ctzll(stops);
            if (first - 1 > 15 || second - 1 > 15)
                break;
            next = at + size + __builtin_ctzll(~(blanks >> size));

            /* Both addresses. */
            memcpy(&prefix, at, 2);
            memcpy(&other, at + first + 3, 2);
            a = _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(at + 2))),
                _mm_loadu_si128((const __m128i *)(at + first + 5)), 1);
            digit = _mm256_sub_epi8(a, zero);
            letter = _mm256_sub_epi8(_mm256_or_si256(a, small), letter_a);
            valid = _mm256_cmpeq_epi8(_mm256_min_epu8(digit, nine), digit);
            b = _mm256_cmpeq_epi8(_mm256_min_epu8(letter, five), letter);
            nibble = _mm256_blendv_epi8(_mm256_add_epi8(letter, ten), digit, valid);
            marks = (uint32_t)_mm256_movemask_epi8(_mm256_or_si256(valid, b));
            wanted = 0xFFFFu >> (16 - first) | 0xFFFFu >> (16 - second) << 16;
            if ((marks & wanted) != wanted || prefix != 0x7830 || other != 0x7830)
                break;
            b = _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(to_end + first))),
                _mm_loadu_si128((const __m128i *)(to_end + second)), 1);
            nibble = _mm256_maddubs_epi16(_mm256_shuffle_epi8(nibble, b), pairs);
            nibble = _mm256_packus_epi16(nibble, nibble);
            out[0] = __builtin_bswap64((uint64_t)_mm256_extract_epi64(nibble, 0));
            out[1] = __builtin_bswap64((uint64_t)_mm256_extract_epi64(nibble, 2));

            /* What was predicted, and cycles: decimal digits up to a slash or the stop. */
            rest = at + first + second + 6;
            memcpy(&word, rest, 8);
            flags = (word & 0xFF) == 'P' ? 2 : 1;
            if ((word & LBR_SIX_BYTES & ~0xFFULL) != (LBR_PREDICTED & ~0xFFULL)
                    || ((word & 0xFF) != 'P' && (word & 0xFF) != 'M'))
                break;
            memcpy(&word, rest + 6, 8);
            others = word ^ LBR_ZEROS;
            others = ((others + LBR_BELOW_10) | others) & LBR_HIGH;
            digits = others ? (uint32_t)__builtin_ctzll(others) >> 3 : 8;
            if (digits - 1 > 4)
                break;
            word = (word << (64 - 8 * digits)) & LBR_LOW_NIBBLES;
            word = (word * 10 + (word >> 8)) & LBR_EVERY_2ND;
            word = (word * 100 + (word >> 16)) & LBR_EVERY_4TH;
            word = (word * 10000 + (word >> 32)) & 0xFFFFFFFFu;
            if (word > 65535)
                break;
            flags |= word << 4;

            /* The type, perhaps empty. */
            rest += 6 + digits;
            if (*rest == '/' && ++rest != at + size) {
                memcpy(&word, rest, 8);
                others = (word - LBR_ZEROS) & ~word & LBR_HIGH;
                if (!others)
                    break;
                digits = (uint32_t)__builtin_ctzll(others) >> 3;
                word &= (1ULL << 8 * digits) - 1;
                others = word * types->factor >> 56;
                if (types->names[others] != word)
                    break;
                flags |= types->bits[others];
                rest += digits;
                if (rest[0] == '/' && rest[1] == '-')
                    rest += 2;
            }
            if (rest != at + size)
                break;
            out[2] = flags;
            at = next;
        }
        *text = at < end ? at : end;
        return count;
    }
    #else
    static int lbr_digits_wide(void) {
        return 0;
    }
    static size_t lbr_plain_entries(
        const uint8_t **text, const uint8_t *end, uint64_t *out, size_t room,
        const lbr_type_table *types) {
        (void)text, (void)end, (void)out, (void)room, (void)types;
        return 0;
    }
    #endif
    """
    ctypedef struct TypeTable "lbr_type_table":
        uint64_t factor
        uint64_t names[256]
        uint64_t bits[256]

    bint lbr_digits_wide() noexcept nogil
    size_t lbr_plain_entries(const uint8_t **text, const uint8_t *end, uint64_t *out, size_t room,
                             const TypeTable *types) noexcept nogil
    int __builtin_ctzll(unsigned long long value) nogil
    const uint64_t ONES "LBR_ONES"
    const uint64_t HIGH "LBR_HIGH"
    const uint64_t SLASHES "LBR_SLASHES"
    const uint64_t ZEROS "LBR_ZEROS"
    const uint64_t LOW_NIBBLES "LBR_LOW_NIBBLES"
    const uint64_t HIGH_NIBBLES "LBR_HIGH_NIBBLES"
    const uint64_t BELOW_10 "LBR_BELOW_10"
    const uint64_t EVERY_2ND "LBR_EVERY_2ND"
    const uint64_t EVERY_4TH "LBR_EVERY_4TH"
    const uint64_t SIX_BYTES "LBR_SIX_BYTES"
    const uint64_t PREDICTED "LBR_PREDICTED"
    const uint64_t MISSED "LBR_MISSED"
    const uint64_t FNV_BASE "LBR_FNV_BASE"
    const uint64_t FNV_PRIME "LBR_FNV_PRIME"


cdef inline uint64_t word(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


# Eight digits that were decoded before, and what they are.
cdef struct Memo:
    uint64_t text, high


cdef inline bint digits(uint64_t text, uint64_t *value) noexcept nogil:
    """Decode eight hexadecimal digits, the first in the lowest byte."""
    cdef uint64_t nibbles = (text & LOW_NIBBLES) + ((text >> 6) & ONES) * 9
    cdef uint64_t letters = ((nibbles + BELOW_10) & HIGH) >> 7
    if (nibbles & HIGH_NIBBLES) \
            or nibbles + ZEROS + letters * 0x27 != text | letters << 5:
        return False
    nibbles = (nibbles << 4 | nibbles >> 8) & EVERY_2ND
    nibbles = (nibbles << 8 | nibbles >> 16) & EVERY_4TH
    value[0] = (nibbles << 16 | nibbles >> 32) & <uint64_t>0xFFFFFFFFu
    return True


cdef inline const uint8_t *address(
    const uint8_t *at, uint64_t *value, Memo *memo
) noexcept nogil:
    """``0x``, up to 16 digits, then ``/``: returns the place after that, or NULL.

    The first eight of nine digits or more are mostly those of the address before.
    """
    cdef uint64_t text, slash, low
    cdef int count
    text = word(at + 2)
    if text != memo.text:
        if at[0] != 0x30 or at[1] != 0x78:  # "0x"
            return NULL
        slash = text ^ SLASHES
        slash = (slash - ONES) & ~slash & HIGH
        if slash:
            count = __builtin_ctzll(slash) >> 3
            if count == 0 or not digits(text << (64 - 8 * count) | ZEROS >> (8 * count), value):
                return NULL
            return at + count + 3
        if not digits(text, &memo.high):
            memo.text = 0
            return NULL
        memo.text = text
    elif at[0] != 0x30 or at[1] != 0x78:
        return NULL
    at += 10
    text = word(at)
    slash = text ^ SLASHES
    slash = (slash - ONES) & ~slash & HIGH
    if not slash:
        if at[8] != 0x2F or not digits(text, &low):
            return NULL
        value[0] = memo.high << 32 | low
        return at + 9
    count = __builtin_ctzll(slash) >> 3
    if count == 0:
        value[0] = memo.high
        return at + 1
    if not digits(text << (64 - 8 * count) | ZEROS >> (8 * count), &low):
        return NULL
    value[0] = memo.high << (4 * count) | low
    return at + count + 1


cdef inline const uint8_t *slow_address(
    const uint8_t *at, const uint8_t *end, uint64_t *value
) noexcept nogil:
    """The same with the name of a file in parentheses after the digits."""
    cdef uint64_t number = 0
    cdef int count = 0, digit
    if at[0] != 0x30 or at[1] != 0x78:
        return NULL
    at += 2
    while count < 17:
        digit = hexadecimal(at[0])
        if digit < 0:
            break
        number = number << 4 | <uint64_t>digit
        at += 1
        count += 1
    if count == 0 or count > 16:
        return NULL
    if at[0] == 0x28:  # "("
        at += 1
        while at < end and not (at[0] == 0x29 and at[1] == 0x2F):  # ")/"
            at += 1
        if at >= end:
            return NULL
        at += 1
    if at[0] != 0x2F:
        return NULL
    value[0] = number
    return at + 1


cdef inline int hexadecimal(uint8_t c) noexcept nogil:
    if 0x30 <= c <= 0x39:
        return c - 0x30
    c |= 0x20
    return c - 0x61 + 10 if 0x61 <= c <= 0x66 else -1


cdef inline const uint8_t *cycles(const uint8_t *at, uint64_t *value) noexcept nogil:
    """Up to seven decimal digits, at most 65535: returns the place after them, or NULL."""
    cdef uint64_t text = word(at), others = text ^ ZEROS
    cdef int count
    others = ((others + BELOW_10) | others) & HIGH
    count = (__builtin_ctzll(others) >> 3) if others else 8
    if count == 0 or count > 7:
        return NULL
    text = (text << (64 - 8 * count)) & LOW_NIBBLES
    text = (text * 10 + (text >> 8)) & EVERY_2ND
    text = (text * 100 + (text >> 16)) & EVERY_4TH
    text = (text * 10000 + (text >> 32)) & <uint64_t>0xFFFFFFFFu
    value[0] = text
    return at + count if text <= 65535 else NULL
