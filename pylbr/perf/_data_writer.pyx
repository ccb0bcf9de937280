"""SAMPLE records of perf.data; the twin in plain Python is in `pylbr.perf.reference`."""

from libc.stdint cimport int64_t, int32_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np


cdef enum:
    S_TIME = 1 << 2
    S_CALLCHAIN = 1 << 5
    S_ID = 1 << 6
    S_CPU = 1 << 7
    S_PERIOD = 1 << 8
    S_IDENTIFIER = 1 << 16
    HW_INDEX = 1 << 17
    COUNTERS = 1 << 19
    RECORD_SAMPLE = 9
    ENTRY_WORDS = 3
    # perf_event_header.size has 16 bits and counts bytes.
    MOST_WORDS = 8191


cdef inline uint64_t *put(uint64_t *at, uint64_t value) noexcept nogil:
    at[0] = value
    return at + 1


cdef inline uint64_t pair(uint32_t low, uint32_t high) noexcept nogil:
    return low | <uint64_t>high << 32


def pack_samples(out, Py_ssize_t first, samples, layout):
    """Write SAMPLE records, from sample `first` on, as many as fit.

    Parameters
    ----------
    out : ndarray of u8, C-contiguous
    first : int
    samples : pylbr.perf.stacks.Samples
    layout : pylbr.perf.sample_layout.SampleLayout

    Returns
    -------
    next : int
        The first sample that was not written; `first` if `out` is too small for it.
    used : int
        Words written.

    Raises
    ------
    ValueError
        When a sample does not fit in one record, or names an event that has no id.
    """
    cdef uint64_t kind = layout.sample_type, chosen = layout.branch_sample_type
    cdef const uint64_t[::1] ip = samples.ip, time = samples.time, period = samples.period
    cdef const int32_t[::1] pid = samples.pid, tid = samples.tid
    cdef const uint32_t[::1] cpu = samples.cpu
    cdef const uint16_t[::1] event = samples.event, misc = samples.misc
    cdef const int64_t[::1] offsets = samples.offsets, chain_offsets = samples.chain_offsets
    cdef const uint64_t[::1] hw_idx = samples.hw_idx, counters = samples.counters
    cdef const uint64_t[::1] chain = samples.chain, entries = samples.entries.view("u8")
    cdef const uint64_t[::1] ids = np.array(layout.ids, "u8")
    cdef uint64_t[::1] room = out
    cdef bint with_counters = (chosen & COUNTERS) != 0
    cdef Py_ssize_t fixed = layout.fixed_words
    cdef Py_ssize_t n = ip.shape[0], i = first, nr, links = 0, words
    cdef uint64_t *at
    cdef uint64_t *end
    cdef int fault = 0
    if room.shape[0] == 0:
        return first, 0
    if samples.chain is None:
        chain_offsets = None
    at = &room[0]
    end = at + room.shape[0]
    with nogil:
        while i < n:
            nr = offsets[i + 1] - offsets[i]
            if kind & S_CALLCHAIN:
                links = 0 if chain_offsets is None else chain_offsets[i + 1] - chain_offsets[i]
            words = fixed + nr * (ENTRY_WORDS + with_counters) + links
            if words > MOST_WORDS:
                fault = 1
                break
            if event[i] >= ids.shape[0]:
                fault = 2
                break
            if words > end - at:
                break
            at = put(at, RECORD_SAMPLE | <uint64_t>misc[i] << 32 | <uint64_t>(words * 8) << 48)
            if kind & S_IDENTIFIER:
                at = put(at, ids[event[i]])
            at = put(at, ip[i])
            at = put(at, pair(<uint32_t>pid[i], <uint32_t>tid[i]))
            if kind & S_TIME:
                at = put(at, time[i])
            if kind & S_ID:
                at = put(at, ids[event[i]])
            if kind & S_CPU:
                at = put(at, cpu[i])
            if kind & S_PERIOD:
                at = put(at, period[i])
            if kind & S_CALLCHAIN:
                at = put(at, links)
                if links:
                    memcpy(at, &chain[chain_offsets[i]], links * 8)
                    at += links
            at = put(at, nr)
            if chosen & HW_INDEX:
                at = put(at, hw_idx[i] if hw_idx is not None else ~<uint64_t>0)
            if nr:
                memcpy(at, &entries[ENTRY_WORDS * offsets[i]], nr * ENTRY_WORDS * 8)
                at += nr * ENTRY_WORDS
                if with_counters:
                    if counters is not None:
                        memcpy(at, &counters[offsets[i]], nr * 8)
                    else:
                        memset(at, 0, nr * 8)
                    at += nr
            i += 1
    if fault == 1:
        raise ValueError(f"sample {i}: {nr} entries and {links} callers do not fit in a record")
    if fault == 2:
        raise ValueError(f"sample {i}: event {event[i]} is not one of {ids.shape[0]}")
    return i, at - &room[0]
