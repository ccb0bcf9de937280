"""Streams of a piece, the arithmetic coding of guesses, and what guesses learn.

docs/trace-format.md specifies them, `lbrt_reference` is the plain twin.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abs

cdef enum:
    TWO_ODDS = 96  # contexts of guesses at nodes with two ways; those of the others follow
    OTHER_ODDS = 171
    ODDS = 186


ctypedef struct many_entry:
    uint32_t rank
    uint8_t tag
    uint8_t state

ctypedef struct streams:
    uint8_t* runs
    uint8_t* guesses
    uint8_t* ranks
    size_t run_bytes
    size_t guess_bytes
    size_t rank_bytes
    size_t run_at
    size_t guess_at
    size_t rank_at
    uint64_t run
    uint32_t low
    uint32_t high
    uint32_t code
    bint guessed
    uint16_t odds[186]  # ODDS


cdef inline void put(uint8_t* out, size_t* at, uint64_t value) noexcept nogil:
    while value > 127:
        out[at[0]] = <uint8_t> (value | 128)
        at[0] += 1
        value >>= 7
    out[at[0]] = <uint8_t> value
    at[0] += 1


cdef inline bint get(const uint8_t* data, size_t size, size_t* at, uint64_t* value) noexcept nogil:
    """A varint; False past the end, or if it does not fit 64 bits."""
    cdef int shift = 0
    value[0] = 0
    while at[0] < size and shift < 64:
        value[0] |= <uint64_t> (data[at[0]] & 127) << shift
        at[0] += 1
        if not data[at[0] - 1] & 128:
            return True
        shift += 7
    return False


cdef inline void begin_guesses(streams* s) noexcept nogil:
    cdef int i
    s.high = 0xFFFFFFFFu
    for i in range(ODDS):
        s.odds[i] = 1 << 14


cdef inline void narrow(streams* s, int context, bint missed) noexcept nogil:
    """Take the part of the range that a guess leaves, and learn how often such guesses miss."""
    cdef uint32_t odds = s.odds[context]
    cdef uint32_t middle = s.low + ((s.high - s.low) >> 16) * odds
    if missed:
        s.high = middle
        s.odds[context] = <uint16_t> (odds + ((65535 - odds) >> 5))
    else:
        s.low = middle + 1
        s.odds[context] = <uint16_t> max(odds - (odds >> 5), 64)


cdef inline void put_guess(streams* s, int context, bint missed) noexcept nogil:
    s.guessed = True
    narrow(s, context, missed)
    while not (s.low ^ s.high) >> 24:
        s.guesses[s.guess_at] = <uint8_t> (s.high >> 24)
        s.guess_at += 1
        s.low <<= 8
        s.high = s.high << 8 | 255


cdef inline void end_guesses(streams* s) noexcept nogil:
    if s.guessed:
        s.guesses[s.guess_at] = <uint8_t> ((s.low >> 24) + 1)
        s.guess_at += 1


cdef inline uint8_t guess_byte(streams* s) noexcept nogil:
    """The next byte; zeros follow the last."""
    s.guess_at += 1
    return s.guesses[s.guess_at - 1] if s.guess_at <= s.guess_bytes else 0


cdef inline int missed_guess(streams* s, int context) noexcept nogil:
    """1 if the next guess is wrong, 0 if it is right, -1 past the end."""
    cdef int _i
    cdef bint missed
    if not s.guessed:
        s.guessed = True
        for _i in range(4):
            s.code = s.code << 8 | guess_byte(s)
    missed = s.code <= s.low + ((s.high - s.low) >> 16) * s.odds[context]
    narrow(s, context, missed)
    while not (s.low ^ s.high) >> 24:
        s.low <<= 8
        s.high = s.high << 8 | 255
        s.code = s.code << 8 | guess_byte(s)
    return -1 if s.guess_at > s.guess_bytes + 3 else missed


cdef inline int two_context(int path, int lean) noexcept nogil:
    """How sure a guess at a node with two ways is: the path's state, the lean's, if they agree."""
    cdef int size = abs(lean)
    cdef int bucket = (0 if size == 0 else 1 if size < 3 else 2 if size < 8 else 3 if size < 24
                       else 4 if size < 48 else 5)
    return (abs(path) * 6 + bucket) * 2 + (path * lean > 0)


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    x *= 0x9E3779B97F4A7C15u
    x ^= x >> 32
    x *= 0xD6E8FEB86659FD93u
    return x ^ (x >> 29)


cdef inline int8_t learned(int state, bint taken, int most) noexcept nogil:
    """A state moves one step towards what happened, or halves its way to nothing."""
    if taken:
        return <int8_t> (min(state + 1, most) if state >= 0 else -((-state) >> 1))
    return <int8_t> (max(state - 1, -most) if state <= 0 else state >> 1)


cdef inline void put_sure(streams* s, int8_t* state, bint taken, int most) noexcept nogil:
    """A way whose state is certain: one more in the run of right ones, or the run's end."""
    if (state[0] > 0) == taken:
        s.run += 1
        return
    put(s.runs, &s.run_at, s.run)
    s.run = 0
    state[0] = learned(state[0], taken, most)


cdef inline bint get_sure(streams* s, int8_t* state, bint* taken, int most) noexcept nogil:
    """A way whose state is certain; False past the end of the runs."""
    taken[0] = state[0] > 0
    if s.run:
        s.run -= 1
        return True
    taken[0] = not taken[0]
    if not get(s.runs, s.run_bytes, &s.run_at, &s.run):
        return False
    state[0] = learned(state[0], taken[0], most)
    return True


cdef inline void learn_many(many_entry* entry, uint8_t tag, uint32_t rank, int most) noexcept nogil:
    """What a path to a node with many ways has learned."""
    if entry.tag != tag or entry.state == 0:
        entry.rank, entry.state = rank, 1
    elif entry.rank == rank:
        entry.state = <uint8_t> min(entry.state + 1, most)
    elif entry.state > 2:
        entry.state >>= 1
    else:
        entry.rank, entry.state = rank, 1
    entry.tag = tag
