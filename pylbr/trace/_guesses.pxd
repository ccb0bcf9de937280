"""Streams of a piece, the arithmetic coding of guesses, and what guesses learn.

docs/trace-format.md specifies them, `lbrt_reference` is the plain twin, `walk.h` is what a reader
does.  Here are the writer's halves.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "walk.h":
    enum:
        TWO_ODDS
        OTHER_ODDS
        ODDS
        NODE_SURE
        PATH_SURE
        MANY_SURE
        NEAR_MOST
        PATH_BITS
        MANY_BITS
        VARINTS
        OK
        BAD_RUNS
        BAD_GUESSES
        BAD_RANKS
        BAD_NODE

    ctypedef struct walk_row:
        pass

    ctypedef struct arc:
        uint64_t mix
        uint64_t key
        uint32_t chain
        uint32_t next
        uint32_t base
        uint32_t length

    ctypedef struct path_entry:
        uint8_t tag
        int8_t state

    ctypedef struct many_entry:
        uint32_t rank
        uint8_t tag
        uint8_t state

    ctypedef struct context:
        uint64_t near
        uint64_t far
        uint32_t node

    ctypedef struct streams:
        const uint8_t* runs
        const uint8_t* guesses
        const uint8_t* ranks
        size_t run_bytes
        size_t guess_bytes
        size_t rank_bytes
        size_t run_at
        size_t guess_at
        size_t rank_at
        uint64_t run
        uint32_t low
        uint32_t high
        int rest
        int speed
        uint16_t odds[186]  # ODDS

    ctypedef struct walk_graph:
        const walk_row* chains
        const uint32_t* numbers
        const uint32_t* target
        const arc* arcs
        const uint32_t* first
        const uint32_t* ways
        int8_t* node_state
        uint32_t* rank_state
        path_entry* paths
        many_entry* far_many
        many_entry* near_many

    const int8_t node_learned[2][256]
    const int8_t path_learned[2][256]
    const uint8_t two_contexts[17][256]
    void walk_tables()
    uint64_t mixed(uint64_t x) noexcept nogil
    void learn_many(many_entry* entry, uint8_t tag, uint32_t rank, int most) noexcept nogil
    size_t pack_runs(const uint32_t* runs, size_t count, uint8_t* out) noexcept nogil
    void narrow(streams* s, int context, uint32_t middle, bint missed) noexcept nogil
    uint32_t middle_of(const streams* s, int context) noexcept nogil
    int begin_reading(streams* s) noexcept nogil
    bint read_to_the_end(const streams* s) noexcept nogil
    int walk_rows(const walk_graph* g, streams* s, context* c, walk_row* rows, uint32_t* numbers,
                  size_t count, size_t skip) noexcept nogil


ctypedef struct writing:
    streams s       # range and odds of the guesses
    uint32_t* runs
    uint8_t* guesses
    uint8_t* ranks
    size_t run_at
    size_t guess_at
    size_t rank_at
    uint32_t run
    bint guessed


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


cdef inline void put_run(writing* w) noexcept nogil:
    w.runs[w.run_at] = w.run
    w.run_at += 1
    w.run = 0


cdef inline void put_guess(writing* w, int context, bint missed) noexcept nogil:
    w.guessed = True
    narrow(&w.s, context, middle_of(&w.s, context), missed)
    while not (w.s.low ^ w.s.high) >> 24:
        w.guesses[w.guess_at] = <uint8_t> (w.s.high >> 24)
        w.guess_at += 1
        w.s.low <<= 8
        w.s.high = w.s.high << 8 | 255


cdef inline void end_guesses(writing* w) noexcept nogil:
    if w.guessed:
        w.guesses[w.guess_at] = <uint8_t> ((w.s.low >> 24) + 1)
        w.guess_at += 1


cdef inline void put_sure(writing* w, int8_t* state, bint taken,
                          const int8_t* after) noexcept nogil:
    """A way whose state is certain: one more in the run of right ones, or the run's end."""
    if (state[0] > 0) == taken:
        w.run += 1
        return
    put_run(w)
    state[0] = after[<uint8_t> state[0]]
