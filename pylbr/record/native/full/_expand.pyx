"""Numbers of blocks from those of the ways out of traces (full.h).

`expand_reference` is the plain twin.
"""

from libc.stdint cimport uint32_t

import numpy as np

from pylbr.record._blocks cimport WIRE_PAYLOAD

cdef enum:
    BLOCKS_MAX = 64  # of a way; a trace has fewer


def expand(words, ways):
    """Each word as the blocks that it stands for; events stay what they are.

    Parameters
    ----------
    words : array of u4, shape (n,)
    ways : array of u4, shape (m, 2)
        First block and number of blocks of each way; the program may write to it at any time.

    Returns
    -------
    ndarray of u4

    Raises
    ------
    ValueError
        A number that no way has, or a way of more blocks than a trace has.
    """
    cdef const uint32_t[::1] data = words
    cdef const uint32_t[:, ::1] table = ways
    cdef Py_ssize_t i, n = 0, total = 0, known = table.shape[0], bad = -1
    cdef uint32_t word, first, count, k
    counts = np.empty(len(data), np.uint32)
    cdef uint32_t[::1] each = counts
    with nogil:
        for i in range(data.shape[0]):
            word = data[i]
            count = 1
            if word < <uint32_t> WIRE_PAYLOAD:
                count = table[word, 1] if word < known else BLOCKS_MAX + 1
                if count > BLOCKS_MAX:
                    bad = i
                    break
            each[i] = count
            total += count
    if bad >= 0:
        raise ValueError(f"word {bad}: no way out has the number {data[bad]}")
    result = np.empty(total, np.uint32)
    cdef uint32_t[::1] out = result
    with nogil:
        for i in range(data.shape[0]):
            word = data[i]
            first = table[word, 0] if word < <uint32_t> WIRE_PAYLOAD else word
            for k in range(each[i]):
                out[n + k] = first + k
            n += each[i]
    return result
