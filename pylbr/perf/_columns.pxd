"""What stands before the entries of a line of ``perf script``: columns, as perf pads them."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from pylbr.perf._digits cimport FNV_BASE, FNV_PRIME, hexadecimal

cdef enum:
    # Widths of columns, as perf pads them: see `pylbr.perf.brstack`.
    NARROW = 5
    WIDER = 7
    PERIOD_WIDTH = 10
    WORD = 16
    NO_FLAGS = 24
    MISC_WIDTH = 6
    COMM_WIDTH = 16
    # Column.
    TASK = 1
    PID_OR_TID = 2
    CPU = 4
    TIME = 8
    PERIOD = 16
    EVENT = 32
    IP = 64
    COMM = 128

ctypedef struct Row:
    uint64_t ip, time, period, event, comm
    int32_t pid, tid
    uint32_t cpu, line_start
    uint64_t columns

cdef inline bint digit(uint8_t c) noexcept nogil:
    return 0x30 <= c <= 0x39


cdef inline uint64_t decimal(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """A decimal number after blanks, modulo 2**64; stops at what is no digit."""
    cdef uint64_t value = 0
    cdef bint negative
    while at < end and at[0] == 0x20:
        at += 1
    negative = at < end and at[0] == 0x2D
    at += negative
    while at < end and digit(at[0]):
        value = value * 10 + (at[0] - 0x30)
        at += 1
    return 0 - value if negative else value


cdef inline uint64_t mixed(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """64-bit FNV-1a of a name, by which rows with the same one are found."""
    cdef uint64_t value = FNV_BASE
    while at < end:
        value = (value ^ at[0]) * FNV_PRIME
        at += 1
    return value


cdef inline const uint8_t *over_blanks(const uint8_t *at, const uint8_t *end) noexcept nogil:
    while at < end and at[0] == 0x20:
        at += 1
    return at


cdef inline const uint8_t *over_number(
    const uint8_t *at, const uint8_t *end, bint signed_
) noexcept nogil:
    """Behind blanks and a decimal number; NULL if there is none."""
    cdef const uint8_t *begin
    at = over_blanks(at, end)
    if signed_ and at < end and at[0] == 0x2D:
        at += 1
    begin = at
    while at < end and digit(at[0]):
        at += 1
    return at if at > begin else NULL


cdef inline bint fits(const uint8_t *at, Py_ssize_t size, Py_ssize_t width) noexcept nogil:
    """Whether a right-aligned column is `width` wide, or wider because it had to be."""
    return size == width or (size > width and at[0] != 0x20)


cdef inline const uint8_t *task(const uint8_t *at, const uint8_t *end, Row *row) noexcept nogil:
    """``pid/tid``, or one of them: the place after, `at` if there is none, NULL if it is none
    that perf prints."""
    cdef const uint8_t *pid = over_number(at, end, True)
    cdef const uint8_t *tid
    cdef Py_ssize_t width, size
    if pid == NULL or pid >= end:
        return at
    size = pid - at
    if pid[0] == 0x2F:
        tid = over_number(pid + 1, end, True)
        if tid == NULL or pid[1] == 0x20 or tid >= end or tid[0] != 0x20:
            return at
        width = WIDER if size == WIDER else NARROW
        if not fits(at, size, width):
            return NULL
        row.pid = <int32_t>decimal(at, pid)
        row.tid = <int32_t>decimal(pid + 1, tid)
        row.columns |= TASK
        size = max(width - (tid - pid - 1), 0) + 1
        return tid + size if over_blanks(tid, end) - tid >= size else NULL
    if pid[0] == 0x20 and (size == NARROW or size == WIDER or (size == 6 and at[0] != 0x20)):
        row.pid = row.tid = <int32_t>decimal(at, pid)
        row.columns |= PID_OR_TID
        return pid + 1
    return at


cdef inline const uint8_t *processor(
    const uint8_t *at, const uint8_t *end, Row *row
) noexcept nogil:
    """``[001]``."""
    cdef const uint8_t *after
    if at >= end or at[0] != 0x5B:
        return at
    after = at + 1
    while after < end and digit(after[0]):
        after += 1
    if not 3 <= after - at - 1 <= 10 or end - after < 2 or after[0] != 0x5D or \
            after[1] != 0x20:
        return at
    row.cpu = <uint32_t>decimal(at + 1, after)
    row.columns |= CPU
    return after + 2


cdef inline const uint8_t *over_misc(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Letters for privilege and guest, padded."""
    cdef int i = 0
    if end - at < MISC_WIDTH:
        return at
    while i < MISC_WIDTH and (
            at[i] == 0x4B or at[i] == 0x55 or at[i] == 0x48 or at[i] == 0x47 or at[i] == 0x67):
        i += 1
    if i == 0 or i == MISC_WIDTH:
        return at
    while i < MISC_WIDTH:
        if at[i] != 0x20:
            return at
        i += 1
    return at + MISC_WIDTH


cdef inline const uint8_t *seconds(const uint8_t *at, const uint8_t *end, Row *row) noexcept nogil:
    """``1.500000:``, micro- or nanoseconds."""
    cdef const uint8_t *dot = over_number(at, end, False)
    cdef const uint8_t *after
    if dot == NULL or dot >= end or dot[0] != 0x2E or not fits(at, dot - at, NARROW):
        return at
    after = dot + 1
    while after < end and digit(after[0]):
        after += 1
    if (after - dot != 7 and after - dot != 10) or end - after < 2 or after[0] != 0x3A or \
            after[1] != 0x20:
        return at
    row.time = decimal(at, dot) * 1000000000 + decimal(dot + 1, after) * (
        1000 if after - dot == 7 else 1)
    row.columns |= TIME
    return after + 2


cdef inline const uint8_t *period(const uint8_t *at, const uint8_t *end, Row *row) noexcept nogil:
    cdef const uint8_t *after = over_number(at, end, False)
    cdef Py_ssize_t size = after - at
    if after == NULL or after >= end or after[0] != 0x20 or \
            not fits(at, size, PERIOD_WIDTH) or (size == WORD and at[0] != 0x20):
        return at
    row.period = decimal(at, after)
    row.columns |= PERIOD
    return after + 1


cdef inline const uint8_t *event_name(
    const uint8_t *at, const uint8_t *end, Row *row
) noexcept nogil:
    """``cycles:``, padded."""
    cdef const uint8_t *begin = over_blanks(at, end)
    cdef const uint8_t *after = begin
    cdef bint raw = end - begin > 4 and not memcmp(begin, b"raw ", 4) and begin[4] != 0x20
    if raw:
        after += 4  # "raw 0x20c4" of an event without a name
    elif begin < end and digit(begin[0]):
        return at
    while after < end and after[0] != 0x20:
        after += 1
    if after - begin < (6 if raw else 2) or (after - 1)[0] != 0x3A or after >= end:
        return at
    row.event = mixed(begin, after - 1)
    row.columns |= EVENT
    return after + 1


cdef inline Py_ssize_t word_width(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Width of a hexadecimal number and the blanks before it, 0 if there is none."""
    cdef const uint8_t *begin = over_blanks(at, end)
    cdef const uint8_t *after = begin
    while after < end and hexadecimal(after[0]) >= 0:
        after += 1
    if not 1 <= after - begin <= 16 or (after < end and after[0] != 0x20):
        return 0
    return after - at


cdef inline bint address_column(const uint8_t *at, const uint8_t *end, Row *row) noexcept nogil:
    """The instruction pointer after numbers of no account; whether all is understood."""
    cdef const uint8_t *after
    cdef Py_ssize_t width = word_width(at, end)
    if width == NO_FLAGS + WORD or width == NO_FLAGS + WORD + 1:
        at += NO_FLAGS
    while word_width(at, end) == WORD:
        at += WORD
    if at < end and at[0] == 0x20 and word_width(at, end) == WORD + 1:
        after = over_blanks(at, end)
        row.ip = 0
        while after < at + WORD + 1:
            row.ip = row.ip << 4 | <uint64_t>hexadecimal(after[0])
            after += 1
        row.columns |= IP
        return True
    return over_blanks(at, end) == end


cdef inline bint columns(const uint8_t *at, const uint8_t *end, Row *row) noexcept nogil:
    """All columns but the task's name; whether there is nothing else."""
    at = task(at, end, row)
    if at == NULL:
        return False
    at = processor(at, end, row)
    at = over_misc(at, end)
    at = seconds(at, end, row)
    at = period(at, end, row)
    at = event_name(at, end, row)
    return address_column(at, end, row)


cdef inline bint prefix(const uint8_t *at, const uint8_t *end, Row *row) noexcept nogil:
    """What stands before the entries; whether it is as perf prints it.

    See `pylbr.perf.brstack.parse_prefix` for the rules.
    """
    cdef uint32_t line_start = row.line_start
    if columns(at, end, row):
        return True
    row[0] = Row(0, 0, 1, 0, 0, 0, 0, 0, line_start, 0)
    if end - at <= COMM_WIDTH or at[0] != 0x20 or at[COMM_WIDTH] != 0x20 or \
            at[COMM_WIDTH - 1] == 0x20 or not columns(at + COMM_WIDTH + 1, end, row):
        return False
    row.comm = mixed(over_blanks(at, end), at + COMM_WIDTH)
    row.columns |= COMM
    return True
