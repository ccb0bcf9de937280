"""Facility state that no register shows: a saved state needs it to continue exactly."""

from libc.stdint cimport uint8_t, uint64_t

from lbrcore.buffers cimport several, truth, unsigned
from lbrcore.lbr cimport CYC_CNT_MAX, LbrState, lbr_find_quick


def internal_state(LbrState state not None):
    """Facility state that no register shows.

    Returns
    -------
    cycles : int or None
        Since the last record, at most FFFFH; None before the first one.
    events : tuple of int
        Logged events since the last record, 0 to 3 each.
    xinuse : bool
        XINUSE[15] was set by XRSTORS.
    """
    cdef int i
    return (
        min(state.state.cycles, <uint64_t> CYC_CNT_MAX) if state.state.cycles_valid else None,
        tuple([state.state.events[i] for i in range(4)]),
        bool(state.state.xinuse),
    )


def set_internal_state(LbrState state not None, cycles, events, xinuse):
    """Set the state that no register shows, after control and records.

    The arguments are what `internal_state` returned.

    Raises
    ------
    OverflowError, ValueError
        For a count out of range; nothing has changed.
    """
    cdef int i
    cdef bint in_use = truth(xinuse, "xinuse")
    counts = tuple([unsigned(one, "events", 3) for one in several(events, "events", 4)])
    since = 0 if cycles is None else unsigned(cycles, "cycles", 0xFFFF)
    state.state.cycles = since
    state.state.cycles_valid = <uint8_t> (cycles is not None)
    lbr_find_quick(state.state)
    for i in range(4):
        state.state.events[i] = <uint8_t> counts[i]
    state.state.xinuse = <uint8_t> in_use
