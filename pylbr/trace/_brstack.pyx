"""Lines of ``perf script`` with branch stacks.  `pylbr.trace.brstack` is the plain twin."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

from pylbr.trace._digits cimport (
    FNV_BASE, FNV_PRIME, HIGH, MISSED, PREDICTED, SIX_BYTES, ZEROS, Memo, TypeTable,
    __builtin_ctzll, address, cycles, hexadecimal, lbr_digits_wide, lbr_plain_entries,
    slow_address, word,
)

from pylbr.trace.brstack import NAMES, PADDING

cdef enum:
    MAX_TOKENS = 64
    WIDE = 17  # blanks and digits of an instruction pointer, as perf pads it
    TYPE_SHIFT = 20
    SPEC_SHIFT = 24
    NEW_TYPE_SHIFT = 26
    # Kinds of tokens.
    OTHER = 0
    DECIMAL = 1
    HEXADECIMAL = 2
    TASK = 3
    CPU = 4
    TIME = 5
    EVENT = 6
    # Why the parser stopped.
    AT_END = 0
    NO_ENTRIES = 1
    BAD_ENTRY = 2
    NO_ROOM = 3

cdef struct Row:
    uint64_t ip, time, period, event, comm
    int32_t pid, tid
    uint32_t cpu, line_start

cdef struct Token:
    const uint8_t *at
    const uint8_t *end
    Py_ssize_t width
    int kind

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
    cdef const uint8_t *behind = at
    cdef int size, place
    if not stop:
        return named(at, end, flags)
    size = __builtin_ctzll(stop) >> 3
    text &= (<uint64_t>1 << 8 * size) - 1
    place = <int>(text * short.factor >> 56)
    if short.names[place] != text:
        return named(at, end, flags)
    behind += size
    if behind[0] == 0x2F and behind[1] == 0x2D:  # "/-"
        behind += 2
    if not ends(behind, end):
        return named(at, end, flags)
    flags[0] |= short.bits[place]
    return behind


cdef const uint8_t *marks(const uint8_t *at, uint64_t *flags) noexcept nogil:
    """``[MPN-]/[X-]/[A-]``; returns the place behind, or NULL."""
    cdef const uint8_t *begin = at
    while at[0] != 0x2F:
        if at[0] == 0x50:    # P
            flags[0] |= 2
        elif at[0] == 0x4D:  # M
            flags[0] |= 1
        elif at[0] == 0x4E:  # N: perf 6.14 says so of a branch that was not taken
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
    """One entry; returns the place behind it, or NULL.

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
    """Where ``0x`` begins a word of the line; NULL if nowhere."""
    cdef const uint8_t *begin = at
    while at < end:
        at = <const uint8_t *>memchr(at, 0x78, end - at)  # "x"
        if at == NULL:
            return NULL
        if at > begin and (at - 1)[0] == 0x30 and (at - 1 == begin or blank((at - 2)[0])):
            return at - 1
        at += 1
    return NULL


cdef int kind_of(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """What a word of the prefix is."""
    cdef Py_ssize_t i, size = end - at, decimals = 0, hexadecimals = 0, slash = 0, dot = 0
    for i in range(size):
        if 0x30 <= at[i] <= 0x39:
            decimals += 1
        elif hexadecimal(at[i]) >= 0:
            hexadecimals += 1
        elif at[i] == 0x2F:
            slash += 1
        elif at[i] == 0x2E:
            dot += 1
    if at[0] == 0x5B and at[size - 1] == 0x5D and decimals and decimals == size - 2:  # "[1]"
        return CPU
    if at[size - 1] == 0x3A:  # ":"
        if dot == 1 and decimals == size - 2 and decimals and at[0] != 0x2E:
            return TIME
        return EVENT if size > 1 else OTHER
    if size - (at[0] == 0x2D) == decimals and decimals:
        return DECIMAL
    if decimals + hexadecimals == size and size <= 16:
        return HEXADECIMAL
    if slash == 1 and decimals and decimals == size - 1 - (at[0] == 0x2D) and \
            at[size - 1] != 0x2F and at[at[0] == 0x2D] != 0x2F:
        return TASK
    return OTHER


cdef uint64_t decimal(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """A decimal number, modulo 2**64; stops at what is no digit."""
    cdef uint64_t value = 0
    cdef bint negative = at[0] == 0x2D
    at += negative
    while at < end and 0x30 <= at[0] <= 0x39:
        value = value * 10 + (at[0] - 0x30)
        at += 1
    return 0 - value if negative else value


cdef uint64_t nanoseconds(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Seconds with a fraction of any length."""
    cdef uint64_t value = 0, scale = 1000000000
    while at[0] != 0x2E:
        value = value * 10 + (at[0] - 0x30)
        at += 1
    value *= scale
    at += 1
    while at < end and 0x30 <= at[0] <= 0x39 and scale > 1:
        scale /= 10
        value += scale * (at[0] - 0x30)
        at += 1
    return value


cdef uint64_t mixed(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """64-bit FNV-1a of a name, by which rows with the same one are found."""
    cdef uint64_t value = FNV_BASE
    while at < end:
        value = (value ^ at[0]) * FNV_PRIME
        at += 1
    return value


cdef int split(const uint8_t *at, const uint8_t *end, Token *tokens) noexcept nogil:
    """Words of the prefix, at most MAX_TOKENS; returns how many."""
    cdef const uint8_t *begin
    cdef int count = 0
    while count < MAX_TOKENS:
        begin = at
        while at < end and blank(at[0]):
            at += 1
        if at >= end:
            break
        tokens[count].at = at
        while at < end and not blank(at[0]):
            at += 1
        tokens[count].end = at
        tokens[count].width = at - begin
        tokens[count].kind = kind_of(tokens[count].at, at)
        count += 1
    return count


cdef void anchored(
    const Token *tokens, int i, int anchor, Row *row
) noexcept nogil:
    """Take over a word that tells by its form what it is."""
    cdef const Token *token = &tokens[i]
    cdef const uint8_t *slash
    if token.kind == TASK:
        row.pid = <int32_t>decimal(token.at, token.end)
        slash = <const uint8_t *>memchr(token.at, 0x2F, token.end - token.at)
        row.tid = <int32_t>decimal(slash + 1, token.end)
    elif token.kind == CPU:
        row.cpu = <uint32_t>decimal(token.at + 1, token.end)
    elif token.kind == TIME:
        row.time = nanoseconds(token.at, token.end)
    else:
        row.event = mixed(token.at, token.end - 1)
        if i > anchor and anchor > 0 and tokens[i - 1].kind == DECIMAL:
            row.period = decimal(tokens[i - 1].at, tokens[i - 1].end)


cdef bint prefix(const uint8_t *at, const uint8_t *end, Row *row) noexcept nogil:
    """What stands before the entries; whether any of it says that this is a sample.

    See `pylbr.trace.brstack.parse_prefix` for the rules.
    """
    cdef Token tokens[MAX_TOKENS]
    cdef int count, i, head = -1, anchor = 0, ip = -1, run = -1
    cdef const uint8_t *begin
    count = split(at, end, tokens)
    for i in range(count):
        if tokens[i].kind == EVENT and anchor and tokens[anchor - 1].kind == EVENT:
            continue  # a symbol that ends in a colon
        if tokens[i].kind >= TASK:
            anchored(tokens, i, anchor, row)
            if head < 0:
                head = i
            anchor = i + 1
    for i in range(anchor, count):
        if tokens[i].kind == DECIMAL or tokens[i].kind == HEXADECIMAL:
            if tokens[i].width >= WIDE:
                ip = i
                break
            if run < 0 or (run == i - 1 and tokens[anchor - 1 if anchor else 0].kind != EVENT):
                run = i
    if ip < 0:
        ip = run
    if ip >= 0 and tokens[ip].at[0] != 0x2D:
        row.ip = 0
        begin = tokens[ip].at
        while begin < tokens[ip].end:
            row.ip = row.ip << 4 | <uint64_t>hexadecimal(begin[0])
            begin += 1
    if head < 0:
        head = ip
    if head > 0 and tokens[head].kind != TASK and tokens[head - 1].kind == DECIMAL:
        head -= 1
        row.pid = row.tid = <int32_t>decimal(tokens[head].at, tokens[head].end)
    if head > 0:
        row.comm = mixed(tokens[0].at, tokens[head - 1].end)
    return count == 0 or anchor > 0 or ip >= 0


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
        With `PADDING` bytes behind `size`, which are read and ignored.
    rows, entries, offsets
        Room for the results: `brstack.ROW_DTYPE`, `perf_abi.ENTRY_DTYPE` as bytes, and one
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
            row[count] = Row(0, 0, 1, 0, 0, 0, 0, 0, <uint32_t>at)
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
