"""Branch stacks as ``perf script`` prints them; the twin is in `pylbr.perf.reference`."""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from pylbr.perf.abi import BRANCH_TYPE_NAMES, NEW_TYPE_NAMES, SPEC_NAMES


cdef enum:
    EXTEND_ABI = 15
    # " 0x<16>/0x<16>/MN/X/A/65535/<type>/<spec> "; the longest names have 10 and 21 letters.
    ENTRY_ROOM = 1 + 18 + 1 + 18 + 8 + 6 + 1 + 12 + 1 + 24 + 1
    IP_ROOM = 18

cdef struct triple:
    uint64_t source
    uint64_t target
    uint64_t flags

cdef struct name:
    char[24] text
    int length

cdef const char *DIGITS = b"0123456789abcdef"
# By type, then the new types of EXTEND_ABI; then by speculation.
cdef name[24] TYPES
cdef name[4] SPECS


cdef int fill(name *names, texts) except -1:
    cdef bytes data
    for i, text in enumerate(texts):
        data = text.encode()
        names[i].length = <int>len(data)
        memcpy(names[i].text, <const char *>data, len(data))
    return 0

# perf prints the new type in place of EXTEND_ABI; unused numbers print as nothing.
fill(TYPES, (*BRANCH_TYPE_NAMES, *NEW_TYPE_NAMES))
fill(SPECS, SPEC_NAMES)


cdef inline char *put_hex(char *at, uint64_t value) noexcept nogil:
    cdef int digits = 1
    cdef uint64_t rest = value >> 4
    cdef int i
    while rest:
        digits += 1
        rest >>= 4
    for i in range(digits - 1, -1, -1):
        at[i] = DIGITS[value & 15]
        value >>= 4
    return at + digits


cdef inline char *put_decimal(char *at, int value) noexcept nogil:
    cdef int digits = 1, rest = value // 10
    cdef int i
    while rest:
        digits += 1
        rest //= 10
    for i in range(digits - 1, -1, -1):
        at[i] = DIGITS[value % 10]
        value //= 10
    return at + digits


cdef inline char *put_name(char *at, const name *text) noexcept nogil:
    memcpy(at, text.text, 24)
    return at + text.length


cdef inline char *put_entry(char *at, const triple *entry, bint spec) noexcept nogil:
    cdef uint64_t flags = entry.flags
    cdef int kind = (flags >> 20) & 15
    at[0], at[1], at[2] = b" ", b"0", b"x"
    at = put_hex(at + 3, entry.source)
    at[0], at[1], at[2] = b"/", b"0", b"x"
    at = put_hex(at + 3, entry.target)
    at[0] = b"/"
    at[1] = b"P" if flags & 2 else (b"M" if flags & 1 else b"-")
    if (flags >> 33) & 1:
        at[2] = b"N"
        at += 1
    at[2], at[4], at[6] = b"/", b"/", b"/"
    at[3] = b"X" if flags & 4 else b"-"
    at[5] = b"A" if flags & 8 else b"-"
    at = put_decimal(at + 7, (flags >> 4) & 0xFFFF)
    at[0] = b"/"
    if kind == EXTEND_ABI:
        kind = min(16 + <int>((flags >> 26) & 15), 24)
    at = at + 1 if kind == 24 else put_name(at + 1, &TYPES[kind])
    if spec:
        at[0] = b"/"
        at = put_name(at + 1, &SPECS[(flags >> 24) & 3])
    at[0] = b" "
    return at + 1


def format_stacks(samples, prefixes, bint ip, bint brstack, bint spec):
    """Lines of text, one a sample.

    Parameters
    ----------
    samples : Samples
    prefixes : list of bytes, or None
        What stands before the address in each line.
    ip, brstack : bool
        Print the sample's address; its branch stack.
    spec : bool
        Add the field that perf has since 6.2: how the branch was speculated.

    Returns
    -------
    bytes
    """
    cdef const uint64_t[::1] ips = samples.ip, words = samples.entries.view("u8")
    cdef const int64_t[::1] offsets = samples.offsets
    cdef Py_ssize_t n = ips.shape[0], i, j, k, digits
    cdef const triple *entry = <const triple *>&words[0] if words.shape[0] else NULL
    cdef Py_ssize_t room = (n * (IP_ROOM + 1) + words.shape[0] // 3 * ENTRY_ROOM + 64)
    cdef bytes prefix
    cdef char number[16]
    if prefixes is not None:
        room += sum(map(len, prefixes))
    cdef char *text = <char *>malloc(room)
    cdef char *at = text
    if text == NULL:
        raise MemoryError
    try:
        for i in range(n):
            if prefixes is not None:
                prefix = prefixes[i]
                memcpy(at, <const char *>prefix, len(prefix))
                at += len(prefix)
            if ip:
                digits = put_hex(number, ips[i]) - number
                for k in range(17 - digits):
                    at[k] = b" "
                memcpy(at + 17 - digits, number, digits)
                at += 17
            if brstack:
                for j in range(offsets[i], offsets[i + 1]):
                    at = put_entry(at, entry + j, spec)
            at[0] = b"\n"
            at += 1
        return text[:at - text]
    finally:
        free(text)
