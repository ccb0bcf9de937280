"""Records of the facility to ``perf_branch_entry``; the twin is in `pylbr.perf.reference`."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import numpy as np

from pylbr.arch.bits cimport INFO_BR_TYPE, INFO_CYC_CNT_VALID, INFO_MISPRED

from lbrcore import BranchClass
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, TYPE_SHIFT, branch_type


# Both dtypes of an entry: three words.
cdef struct triple:
    uint64_t source
    uint64_t target
    uint64_t word

cdef enum:
    USER = 1 << 0
    KERNEL = 1 << 1
    ANY = 1 << 3
    CALL_STACK = 1 << 11
    TYPE_SAVE = 1 << 16
    COUNTERS = 1 << 19
    LOGGED = 0xFF  # BRANCH_COUNTERS of BRANCH_COUNTER_BITS, pylbr.perf.abi
    IRET = 11  # BranchClass

cdef uint64_t[16] TYPE_OF_CLASS
for _class in BranchClass:
    TYPE_OF_CLASS[<int>_class] = <uint64_t>(<int>branch_type(_class)) << <int>TYPE_SHIFT


cdef inline uint64_t type_of(uint64_t info, uint64_t mask, int known) noexcept nogil:
    """Type bits; known is -1 where the class is not given.  Codes above 5 are not specific."""
    cdef int code
    if known >= 0:
        return TYPE_OF_CLASS[known] if known < 16 else 0
    if mask & INFO_BR_TYPE:
        code = (info >> 56) & 0xF
        if code <= 5:
            return TYPE_OF_CLASS[code]
    return 0


cdef inline uint64_t flags_of(uint64_t info, uint64_t mask) noexcept nogil:
    """Third word of perf_branch_entry but for the type."""
    cdef uint64_t flags = 0
    if mask & INFO_MISPRED:
        flags = 2 - (info >> 63)            # mispred 1, predicted 2
    info &= mask
    flags |= (info >> 60) & 4               # in_tx, from bit 62
    flags |= (info >> 58) & 8               # abort, from bit 61
    if info & INFO_CYC_CNT_VALID or not mask & INFO_CYC_CNT_VALID:
        flags |= (info & 0xFFFF) << 4
    return flags


def convert(batch, uint64_t branch_sample_type):
    """Perf's entries of a batch of samples; see `pylbr.perf.entries.perf_samples`.

    Returns
    -------
    offsets : ndarray of i8, shape (n + 1,)
    entries : ndarray of abi.BRANCH_ENTRY_DTYPE, shape (k,)
    counters : ndarray of u8, shape (k,), or None
        PMC0_CNT to PMC3_CNT of INFO, two bits each, if COUNTERS is asked for: Linux keeps four.
    """
    cdef const uint32_t[::1] nr = batch.nr
    cdef const int64_t[::1] starts = batch.starts
    cdef const uint8_t[::1] classes = batch.classes
    cdef uint64_t mask = batch.info_mask
    cdef bint typed = (mask & INFO_BR_TYPE) != 0 or (branch_sample_type & TYPE_SAVE) != 0
    cdef bint drop_kernel = (branch_sample_type & USER) != 0 \
        and (branch_sample_type & KERNEL) == 0
    cdef bint both_or_neither = ((branch_sample_type & USER) != 0) \
        == ((branch_sample_type & KERNEL) != 0)
    cdef bint stop_at_zero = (mask & INFO_BR_TYPE) != 0 or (branch_sample_type & CALL_STACK) != 0
    cdef bint as_it_is = not stop_at_zero and not typed and both_or_neither \
        and (branch_sample_type & ANY) != 0
    cdef Py_ssize_t n = nr.shape[0], i, j
    total = int(batch.nr.sum(dtype="i8"))
    entries = np.empty(total, BRANCH_ENTRY_DTYPE)
    counters = np.empty(total, "u8") if branch_sample_type & COUNTERS else None
    offsets = np.zeros(n + 1, "i8")
    if total == 0:
        return offsets, entries, counters
    cdef const uint64_t[::1] words = batch.entries.view("u8")
    cdef uint64_t[::1] out_words = entries.view("u8")
    cdef uint64_t[::1] out_counters = counters
    cdef int64_t[::1] out_offsets = offsets
    cdef const triple *entry
    cdef triple *out = <triple *>&out_words[0]
    cdef Py_ssize_t used = 0
    with nogil:
        for i in range(n):
            if nr[i]:
                entry = <const triple *>&words[0] + starts[i]
                for j in range(nr[i]):
                    if not as_it_is:
                        if entry[j].source == 0 and stop_at_zero:
                            break
                        # 0 and all ones, the two ends, are no addresses of branches.
                        if entry[j].source + 1 < 2 or (drop_kernel and entry[j].source >> 63):
                            if (classes is not None and classes[starts[i] + j] == IRET
                                    and entry[j].source):
                                break
                            continue
                    out[used].source = entry[j].source
                    out[used].target = entry[j].target
                    out[used].word = flags_of(entry[j].word, mask)
                    if typed:
                        out[used].word |= type_of(
                            entry[j].word, mask,
                            classes[starts[i] + j] if classes is not None else -1)
                    if out_counters is not None:
                        out_counters[used] = (entry[j].word >> 32) & LOGGED
                    used += 1
            out_offsets[i + 1] = used
    return offsets, entries[:used], None if counters is None else counters[:used]
