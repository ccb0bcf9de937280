"""From rows of a trace to a summary, looking at no more of them than it takes.

Outside call-stack mode the newest depth + 1 branches that are recorded decide everything, so
the rows are searched from the end.  In call-stack mode the heights of the stack in blocks of
rows say which block holds a call that is still open; only those are looked into.
"""

from libc.stddef cimport size_t

from lbrcore.lbr cimport lbr_state
from lbrcore.rows cimport lbr_rows
from lbrcore.summary cimport lbr_summary

# What rows [first, last) do to a facility with the control, depth and tables of `state`; returns
# the first row whose record was made, for prefetching.  `whole`: also LER and, outside call-stack
# mode, the movement of the head, which takes a look at the class of every row.
cdef size_t lbr_summarize(
    lbr_summary* summary, const lbr_state* state, const lbr_rows* rows, size_t first, size_t last,
    bint whole) noexcept nogil
