"""Conditional branches on a straight way through code: those that were not taken."""

from libc.stdint cimport uint8_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef extern from "decode.h" nogil:
    struct x86_insn:
        uint8_t length
        uint8_t cls

    int x86_decode(const uint8_t* bytes, size_t available, x86_insn* out)

cdef enum:
    COND = 0  # lbr_class


def passed(bytes code not None, unsigned long long start):
    """passed(code, start)\n--\n
    Addresses of the conditional branches in straight code.

    Parameters
    ----------
    code : bytes
        From the target of a branch to the next branch that was taken, without it.
    start : int
        Address of its first byte.

    Returns
    -------
    list of int
        In order; empty also where the decoder refuses an instruction: what lies after it is
        not known.
    """
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(code)
    cdef Py_ssize_t left = PyBytes_GET_SIZE(code)
    cdef x86_insn insn
    cdef unsigned long long address = start
    cdef list found = []
    while left > 0:
        if not x86_decode(at, left, &insn):
            return []
        if insn.cls == COND:
            found.append(address)
        at += insn.length
        left -= insn.length
        address += insn.length
    return found
