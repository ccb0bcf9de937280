"""What a stretch of branches does to a facility: a function of the state before it.

    (pops, keep, entries): remove the newest `pops` records, keep at most `keep` of the rest,
    put `entries` on top.

With that come the counts that the stretch leaves open at its two ends, how far the head moved,
and what LER took.  Summaries compose in the order of the trace; composing is associative and
not commutative.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_entry, lbr_state

ctypedef struct lbr_counts:
    uint64_t cycles       # saturated at CYC_CNT_MAX
    uint64_t events       # four counts, one byte per counter, saturated at EVENT_COUNT_MAX

ctypedef struct lbr_summary:
    lbr_entry entries[32]  # records made and still there, newest first
    uint32_t n            # how many
    uint32_t depth
    uint32_t pops
    uint32_t keep
    uint32_t moved        # of the head, modulo 2**32
    uint8_t mode          # enum lbr_mode of the facility
    uint8_t ended         # a record or a restart ended the lead
    uint8_t open          # entries[n-1] ended it: its counts are those before and `lead`
    uint8_t cycles_valid  # after the last row; as `tail`, only if `ended`
    uint8_t ler_loaded    # LER became `ler` ...
    uint32_t ler_earlier  # ... and then the earlier record i, for each set bit i in turn
    lbr_entry ler
    lbr_counts lead       # counted before it ended; 0 if it ended and nothing is open
    lbr_counts tail       # counted since the last record or restart
    uint64_t info_mask    # lbr_config.info_mask


cdef void lbr_summary_identity(lbr_summary* summary, const lbr_state* state) noexcept nogil
cdef void lbr_summary_restart(lbr_summary* summary, const lbr_state* state) noexcept nogil
cdef void lbr_summary_clear(lbr_summary* summary, const lbr_state* state) noexcept nogil
cdef void lbr_summary_load_ler(lbr_summary* summary, const lbr_state* state) noexcept nogil

# `first` becomes `first` and then `second`.
cdef void lbr_summary_then(lbr_summary* first, const lbr_summary* second) noexcept nogil

# Advance `state` from before the stretch to after it.
cdef void lbr_summary_apply(const lbr_summary* summary, lbr_state* state) noexcept nogil

cdef lbr_counts lbr_counts_add(lbr_counts a, lbr_counts b) noexcept nogil


@cython.final
cdef class Summary:
    cdef lbr_summary summary
