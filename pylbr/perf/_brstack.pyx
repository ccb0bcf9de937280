"""Lines of ``perf script`` with branch stacks.  `pylbr.perf.brstack` is the plain twin."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

from pylbr.perf._columns cimport Row, prefix
from pylbr.perf._digits cimport (
    HIGH, MISSED, PREDICTED, SIX_BYTES, ZEROS, Memo, TypeTable, __builtin_ctzll, address, cycles,
    lbr_digits_wide, lbr_plain_entries, slow_address, word,
)

from pylbr.perf.brstack import NAMES, PADDING

cdef enum:
    TYPE_SHIFT = 20
    SPEC_SHIFT = 24
    NEW_TYPE_SHIFT = 26
    # Why the parser stopped.
    AT_END = 0
    NO_ENTRIES = 1
    BAD_ENTRY = 2
    NO_ROOM = 3

cdef struct Entry:
    uint64_t source, target, flags

# Names of types, new types and speculation states with the bits they stand for.
cdef struct Name:
    uint8_t text[24]
    Py_ssize_t size
    uint64_t bits

cdef Name names[64]
cdef int name_count = 0

for _text, _bits in NAMES.items():
    names[name_count].size = len(_text)
    names[name_count].bits = _bits
    for _i in range(len(_text)):
        names[name_count].text[_i] = _text[_i]
    name_count += 1

# Those of less than eight bytes, and none, by their bytes, in a table without collisions.
cdef TypeTable short


def _spread():
    """A factor that gives each short name a place of its own, and what stands at the places."""
    words = {0: 0} | {
        int.from_bytes(text, "little"): bits for text, bits in NAMES.items() if len(text) < 8}
    factor = 1
    while len({factor * name % 2**64 >> 56 for name in words}) < len(words):
        factor = factor * 6364136223846793005 % 2**64 + 2
    return factor, {factor * name % 2**64 >> 56: (name, bits) for name, bits in words.items()}


memset(&short, 0, sizeof(short))
short.factor, _table = _spread()
for _i, (_text, _bits) in _table.items():
    short.names[<int>_i], short.bits[<int>_i] = _text, _bits

cdef bint wide = lbr_digits_wide()


def use_avx2(bint wanted):
    """Whether AVX2 is used, if there is such: for tests."""
    global wide
    wide = wanted and lbr_digits_wide()


cdef inline bint blank(uint8_t c) noexcept nogil:
    return c == 0x20 or c == 0x09


cdef inline bint ends(const uint8_t *at, const uint8_t *end) noexcept nogil:
    return at >= end or blank(at[0])


cdef const uint8_t *named(
    const uint8_t *at, const uint8_t *end, uint64_t *flags
) noexcept nogil:
    """Type and speculation, each perhaps empty, until a blank; NULL for an unknown name."""
    cdef const uint8_t *begin
    cdef int i
    while True:
        begin = at
        while not ends(at, end) and at[0] != 0x2F:
            at += 1
        if at > begin and not (at - begin == 1 and begin[0] == 0x2D):
            for i in range(name_count):
                if names[i].size == at - begin and not memcmp(names[i].text, begin, at - begin):
                    flags[0] |= names[i].bits
                    break
            else:
                return NULL
        if ends(at, end):
            return at
        at += 1


cdef inline const uint8_t *quickly_named(
    const uint8_t *at, const uint8_t *end, uint64_t *flags
) noexcept nogil:
    """The same for a short type, or none, without speculation: the commonest."""
    cdef uint64_t text = word(at), stop = (text - ZEROS) & ~text & HIGH  # below "0"
    cdef const uint8_t *after = at
    cdef int size, place
    if not stop:
        return named(at, end, flags)
    size = __builtin_ctzll(stop) >> 3
    text &= (<uint64_t>1 << 8 * size) - 1
    place = <int>(text * short.factor >> 56)
    if short.names[place] != text:
        return named(at, end, flags)
    after += size
    if after[0] == 0x2F and after[1] == 0x2D:  # "/-"
        after += 2
    if not ends(after, end):
        return named(at, end, flags)
    flags[0] |= short.bits[place]
    return after


cdef const uint8_t *marks(const uint8_t *at, uint64_t *flags) noexcept nogil:
    """``[MPN-]/[X-]/[A-]``; returns the place after, or NULL."""
    cdef const uint8_t *begin = at
    while at[0] != 0x2F:
        if at[0] == 0x50:    # P
            flags[0] |= 2
        elif at[0] == 0x4D:  # M
            flags[0] |= 1
        elif at[0] == 0x4E:  # N: perf 6.14 prints it for a branch that was not taken
            flags[0] |= <uint64_t>1 << 33
        elif at[0] != 0x2D:
            return NULL
        at += 1
    if at == begin or at - begin > 2 or at[2] != 0x2F:
        return NULL
    if at[1] == 0x58:        # X
        flags[0] |= 4
    elif at[1] != 0x2D:
        return NULL
    if at[3] == 0x41:        # A
        flags[0] |= 8
    elif at[3] != 0x2D:
        return NULL
    return at + 4


cdef inline const uint8_t *entry(
    const uint8_t *at, const uint8_t *end, Entry *result, Memo *memo
) noexcept nogil:
    """One entry; returns the place after it, or NULL.

    FROM/TO/[MPN-]/[X-]/[A-][/CYCLES[/TYPE[/SPEC]]], as perf 3 to 6.14 print it.
    """
    cdef const uint8_t *begin = at
    cdef uint64_t flags = 0, text
    at = address(begin, &result.source, memo)
    if at == NULL:
        at = slow_address(begin, end, &result.source)
        if at == NULL:
            return NULL
    begin = at
    at = address(begin, &result.target, memo)
    if at == NULL:
        at = slow_address(begin, end, &result.target)
        if at == NULL:
            return NULL
    text = word(at)
    if text & SIX_BYTES == PREDICTED:  # P/-/-/
        flags = 2
        at += 5
    elif text & SIX_BYTES == MISSED:   # M/-/-/
        flags = 1
        at += 5
    else:
        at = marks(at, &flags)
        if at == NULL:
            return NULL
    if at[0] == 0x2F:
        if at[2] == 0x2F and 0x30 <= at[1] <= 0x39:
            text = at[1] - 0x30
            at += 2
        else:
            at = cycles(at + 1, &text)
            if at == NULL:
                return NULL
        flags |= text << 4
        if at[0] == 0x2F:
            at += 1
            if not ends(at, end):
                at = quickly_named(at, end, &flags)
                if at == NULL:
                    return NULL
    if at > end or not ends(at, end):
        return NULL
    result.flags = flags
    return at


cdef const uint8_t *first_entry(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Where a word begins that is an entry, or would be one; NULL if nowhere."""
    cdef const uint8_t *begin = at
    cdef const uint8_t *word_at
    while at < end:
        at = <const uint8_t *>memchr(at, 0x78, end - at)  # "x"
        if at == NULL:
            return NULL
        if at > begin and (at - 1)[0] == 0x30 and (at - 1 == begin or blank((at - 2)[0])):
            word_at = at + 1
            while not ends(word_at, end) and word_at[0] != 0x2F and word_at[0] != 0x28:
                word_at += 1
            if word_at < end and (word_at[0] == 0x28 or (  # "(", "/0x"
                    word_at[0] == 0x2F and end - word_at > 2 and word_at[1] == 0x30
                    and word_at[2] == 0x78)):
                return at - 1
        at += 1
    return NULL


cdef Py_ssize_t entries_of(
    const uint8_t *at, const uint8_t *end, Entry *result, Py_ssize_t room, Memo *memo
) noexcept nogil:
    """The entries up to the end of a line: how many, or -BAD_ENTRY or -NO_ROOM."""
    cdef Py_ssize_t count = 0
    while at < end:
        if wide:
            count += <Py_ssize_t> lbr_plain_entries(
                &at, end, &result[count].source, <size_t> (room - count), &short)
            while at < end and blank(at[0]):
                at += 1
            if at >= end:
                break
        if count == room:
            return -NO_ROOM
        at = entry(at, end, &result[count], memo)
        if at == NULL:
            return -BAD_ENTRY
        count += 1
        while at < end and blank(at[0]):
            at += 1
    return count


def parse(
    const uint8_t[::1] data, Py_ssize_t at, Py_ssize_t size, uint8_t[::1] rows,
    uint8_t[::1] entries, int64_t[::1] offsets,
):
    """Parse the lines of ``data[at:size]`` that have entries.

    Parameters
    ----------
    data : buffer
        With `PADDING` bytes after `size`, which are read and ignored.
    rows, entries, offsets
        Room for the results: `brstack.ROW_DTYPE`, `abi.BRANCH_ENTRY_DTYPE` as bytes, and one
        int64 a row and one more.

    Returns
    -------
    tuple of int
        Where it stopped, rows, why (`AT_END`, `NO_ENTRIES` ...), lines passed.
    """
    cdef Py_ssize_t count = 0, most = rows.shape[0] // sizeof(Row), lines = 0
    cdef Py_ssize_t room = entries.shape[0] // sizeof(Entry), used = 0, found
    cdef Row *row = <Row *>&rows[0]
    cdef Entry *entry_at = <Entry *>&entries[0]
    cdef const uint8_t *base = &data[0]
    cdef const uint8_t *here
    cdef const uint8_t *end
    cdef const uint8_t *start
    cdef int why = AT_END
    cdef Memo memo = Memo(0, 0)
    if data.shape[0] < size + PADDING or offsets.shape[0] < most + 1:
        raise ValueError("a buffer is too small")
    offsets[0] = 0
    with nogil:
        while at < size:
            end = <const uint8_t *>memchr(base + at, 0x0A, size - at)
            if end == NULL:
                break
            start = base + at
            if end == start:
                at += 1
                lines += 1
                continue
            here = first_entry(start, end)
            if here == NULL or start[0] == 0x23:
                why = NO_ENTRIES
                break
            if count == most:
                why = NO_ROOM
                break
            row[count] = Row(0, 0, 1, 0, 0, 0, 0, 0, <uint32_t>at, 0)
            if not prefix(start, here, &row[count]):
                why = NO_ENTRIES
                break
            found = entries_of(here, end, entry_at + used, room - used, &memo)
            if found < 0:
                why = -found
                break
            used += found
            count += 1
            offsets[count] = used
            at = end - base + 1
            lines += 1
    return at, count, why, lines
