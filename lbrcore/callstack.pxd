"""Call-stack mode: which calls of a stretch of rows are still open, by blocks of heights."""

from libc.stddef cimport size_t

from lbrcore.lbr cimport lbr_state
from lbrcore.lookback cimport lbr_look
from lbrcore.rows cimport lbr_rows
from lbrcore.summary cimport lbr_summary

# What rows [first, last) do in call-stack mode, but for LER.
cdef void lbr_summarize_stack(
    lbr_summary* summary, const lbr_state* state, const lbr_look* look, const lbr_rows* rows,
    size_t first, size_t last) noexcept nogil
