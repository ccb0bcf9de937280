"""XSAVES and XRSTORS of component 15, the LBR state (SDM vol. 1, 13.5.12, 13.11, 13.12).

    component   0  IA32_LBR_CTL          area    0  legacy region
                8  IA32_LBR_DEPTH               512  XSTATE_BV
               16  IA32_LER_FROM_IP             520  XCOMP_BV
               24  IA32_LER_TO_IP               528  reserved, 0
               32  IA32_LER_INFO                576  components, compacted
        40 + 24*i  FROM, TO, INFO of entry i

A restore that faults leaves the state as it was: the manual lets each element hold its old, its
new or its initial value, and this is one of the permitted outcomes.
"""

from collections.abc import Mapping
from types import NoneType

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from lbrcore.buffers cimport acquire_bytes, unsigned
from lbrcore.errors import Fault
from lbrcore.control cimport lbr_control_changed
from lbrcore.lbr cimport (
    LBR_ARCHITECTURAL, LBR_EINVAL, LBR_ESHORT, LBR_GP, LBR_OK, LBR_SLOTS, LbrState, lbr_canonical,
    lbr_clear, lbr_entry, lbr_max_depth, lbr_slot,
)

cdef enum:
    HEADER = 512
    EXTENDED = 576
    ENTRIES = 40

cdef extern from *:
    """
    #define LBR_COMPACTED (1ull << 63)
    #define LBR_BIT (1ull << 15)
    """
    const uint64_t COMPACTED "LBR_COMPACTED"
    const uint64_t LBR_BIT


cdef inline uint64_t _load(const void* bytes_, size_t offset) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, <const uint8_t*> bytes_ + offset, 8)
    return value


cdef inline void _store(void* bytes_, size_t offset, uint64_t value) noexcept nogil:
    memcpy(<uint8_t*> bytes_ + offset, &value, 8)


cdef inline void _store_entry(
    void* bytes_, const lbr_entry* entry, const lbr_state* state
) noexcept nogil:
    _store(bytes_, 0, lbr_canonical(state, entry.from_))
    _store(bytes_, 8, lbr_canonical(state, entry.to))
    _store(bytes_, 16, entry.info)


cdef bint lbr_xinuse(const lbr_state* state) noexcept nogil:
    """XINUSE[15]: set by XRSTORS, or some register but DEPTH is not 0 (SDM vol. 1, 13.6)."""
    cdef lbr_entry entry
    cdef uint32_t i
    if state.xinuse or state.ctl or state.ler.from_ or state.ler.to or state.ler.info:
        return True
    for i in range(state.depth):
        entry = state.ring[(state.head - i) & (LBR_SLOTS - 1)]
        if entry.from_ | entry.to | entry.info:
            return True
    return False


# ---------------------------------------------------------------- the component

cdef int lbr_pack(const lbr_state* state, void* component, size_t size) noexcept nogil:
    """Write CTL, DEPTH, LER and the entries below DEPTH; no other byte is touched."""
    cdef const lbr_entry* entry
    cdef uint8_t* target = <uint8_t*> component + ENTRIES
    cdef uint32_t i
    if state.config.flavour != LBR_ARCHITECTURAL:
        return LBR_EINVAL
    if size < ENTRIES + sizeof(lbr_entry) * state.depth:
        return LBR_ESHORT
    _store(component, 0, state.ctl)
    _store(component, 8, state.depth)
    _store_entry(<uint8_t*> component + 16, &state.ler, state)
    for i in range(state.depth):
        entry = &state.ring[(state.head - i) & (LBR_SLOTS - 1)]
        _store_entry(target, entry, state)
        target += sizeof(lbr_entry)
    return LBR_OK


cdef uint64_t _depth_bits(const lbr_state* state) noexcept nogil:
    """Bits that are not reserved in IA32_LBR_DEPTH: those that the largest depth needs.

    The manual calls the field [N:0] and does not define N: UNCONFIRMED.
    """
    cdef uint64_t bits = 1, deepest = lbr_max_depth(&state.config)
    while bits < deepest + 1:
        bits <<= 1
    return bits - 1


cdef const char* _component_fault(
    const lbr_state* state, const void* component, size_t size
) noexcept nogil:
    """The rule by which XRSTORS refuses a component, or NULL."""
    cdef uint64_t depth = _load(component, 8)
    cdef size_t i
    if _load(component, 0) & ~state.config.ctl_mask:
        return b"bits of IA32_LBR_CTL are set that are reserved or not offered"
    if depth != state.depth and depth & ~_depth_bits(state):
        return b"reserved bits of IA32_LBR_DEPTH are set"
    for i in range(LBR_COMPONENT_SIZE, size):
        if (<const uint8_t*> component)[i]:
            return b"bytes after 807 of the component are not all 0"
    return NULL


cdef int lbr_unpack(lbr_state* state, const void* component, size_t size) noexcept nogil:
    """Restore from a component whose XSTATE_BV bit is set (cases 2 to 4 of SDM vol. 1, 13.12)."""
    cdef uint64_t ctl, depth, entries
    cdef size_t i
    if state.config.flavour != LBR_ARCHITECTURAL:
        return LBR_EINVAL
    if size < ENTRIES:
        return LBR_ESHORT
    ctl = _load(component, 0)
    depth = _load(component, 8)
    entries = depth if depth == state.depth else min(
        depth, <uint64_t> lbr_max_depth(&state.config))
    if size < ENTRIES + sizeof(lbr_entry) * entries:
        return LBR_ESHORT
    if _component_fault(state, component, size) != NULL:
        return LBR_GP
    memcpy(&state.ler, <const uint8_t*> component + 16, sizeof(lbr_entry))
    lbr_clear(state)
    if depth == state.depth:
        for i in range(state.depth):
            memcpy(lbr_slot(state, state.head - <uint32_t> i),
                   <const uint8_t*> component + ENTRIES + sizeof(lbr_entry) * i,
                   sizeof(lbr_entry))
        state.xinuse = 1
    _load_ctl(state, ctl)
    return LBR_OK


cdef void _load_ctl(lbr_state* state, uint64_t ctl) noexcept nogil:
    """CTL as XRSTORS loads it: what CYC_CNT counted from is gone."""
    state.ctl = ctl
    state.active = 0
    lbr_control_changed(state)


cdef int _initialise(lbr_state* state) noexcept nogil:
    """Initial configuration: all 0, DEPTH as it is (case 1)."""
    if state.config.flavour != LBR_ARCHITECTURAL:
        return LBR_EINVAL
    memset(&state.ler, 0, sizeof(lbr_entry))
    lbr_clear(state)
    state.xinuse = 0
    _load_ctl(state, 0)
    return LBR_OK


# ---------------------------------------------------------------- the area

cdef int _offset(const lbr_xsave_layout* layout, uint64_t xcomp_bv, size_t* offset) noexcept nogil:
    """Where component 15 starts in the compacted format."""
    cdef size_t at = EXTENDED
    cdef int i
    for i in range(2, LBR_COMPONENT + 1):
        if not (xcomp_bv >> i) & 1:
            continue
        if layout.size[i] == 0:
            return LBR_EINVAL
        if (layout.aligned >> i) & 1:
            at = (at + 63) & ~<size_t> 63
        if i < LBR_COMPONENT:
            at += layout.size[i]
    offset[0] = at
    return LBR_OK


cdef int lbr_xsaves(
    const lbr_state* state, void* area, size_t size, const lbr_xsave_layout* layout,
    uint64_t rfbm, uint64_t xinuse
) noexcept nogil:
    """Write the header and component 15; `xinuse` speaks for the other components."""
    cdef size_t offset = 0
    cdef int result
    rfbm &= ~COMPACTED
    xinuse &= ~LBR_BIT
    if rfbm & LBR_BIT and state.config.flavour != LBR_ARCHITECTURAL:
        return LBR_EINVAL
    if size < EXTENDED:
        return LBR_ESHORT
    if rfbm & LBR_BIT and lbr_xinuse(state):
        result = _offset(layout, rfbm, &offset)
        if result != LBR_OK:
            return result
        if size < offset:
            return LBR_ESHORT
        result = lbr_pack(state, <uint8_t*> area + offset, size - offset)
        if result != LBR_OK:
            return result
        xinuse |= LBR_BIT
    _store(area, HEADER, rfbm & xinuse)
    _store(area, HEADER + 8, rfbm | COMPACTED)
    return LBR_OK


cdef const char* _header_fault(const void* area, uint64_t supported) noexcept nogil:
    """The rule by which XRSTORS refuses a header, or NULL."""
    cdef uint64_t xstate_bv = _load(area, HEADER), xcomp_bv = _load(area, HEADER + 8)
    cdef size_t i
    if not xcomp_bv & COMPACTED:
        return b"XCOMP_BV[63] is clear; XRSTORS takes the compacted format only"
    if xcomp_bv & ~COMPACTED & ~supported:
        return b"XCOMP_BV has bits that are not in `supported`"
    if xstate_bv & (~xcomp_bv | COMPACTED):
        return b"XSTATE_BV has bits that are not in XCOMP_BV"
    for i in range(<size_t> HEADER + 16, <size_t> EXTENDED, 8):
        if _load(area, i):
            return b"bytes 16 to 63 of the header are reserved and not all 0"
    return NULL


cdef int lbr_xrstors(
    lbr_state* state, const void* area, size_t size, const lbr_xsave_layout* layout,
    uint64_t rfbm, uint64_t supported
) noexcept nogil:
    cdef size_t offset = 0, end
    cdef int result
    if size < EXTENDED:
        return LBR_ESHORT
    if _header_fault(area, supported) != NULL:
        return LBR_GP
    if not rfbm & LBR_BIT & supported:
        return LBR_OK
    if not _load(area, HEADER) & LBR_BIT:
        return _initialise(state)
    result = _offset(layout, _load(area, HEADER + 8), &offset)
    if result != LBR_OK:
        return result
    if offset > size:
        return LBR_ESHORT
    end = offset + layout.size[LBR_COMPONENT]
    return lbr_unpack(state, <const uint8_t*> area + offset, min(size, end) - offset)


# ---------------------------------------------------------------- Python

cdef lbr_xsave_layout _layout_from(object sizes, object aligned) except *:
    cdef lbr_xsave_layout layout
    memset(&layout, 0, sizeof(layout))
    layout.size[LBR_COMPONENT] = LBR_COMPONENT_SIZE
    if not isinstance(sizes, (NoneType, Mapping)):
        raise TypeError("sizes: must map numbers of components to bytes, not be a "
                        f"{type(sizes).__name__}")
    for component, size in (sizes or {}).items():
        layout.size[unsigned(component, "sizes", 62)] = <uint32_t> unsigned(
            size, f"sizes[{component}]", 0xFFFFFFFF)
    layout.aligned = unsigned(aligned, "aligned", <uint64_t> -1)
    return layout


cdef int _raise(
    int result, const lbr_state* state, str name, Py_ssize_t size, str rule=""
) except -1:
    if result == LBR_OK:
        return 0
    if result == LBR_ESHORT:
        raise ValueError(f"{name}: {size} bytes end before the saved state does")
    if result == LBR_GP:
        raise Fault(f"{name}: {rule}")
    if state.config.flavour != LBR_ARCHITECTURAL:
        raise ValueError("state: must be of the architectural flavour; legacy LBRs are not "
                         "XSAVE-managed")
    raise ValueError(f"{name}: a component that lies in it has no size in `sizes`")


cdef str _told(const char* rule):
    # Another thread may write to the memory between the refusal and the second look.
    return "it was refused, and has changed since" if rule == NULL else rule.decode()


cdef str _area_fault(
    const lbr_state* state, const uint8_t* area, size_t size, const lbr_xsave_layout* layout,
    uint64_t supported
):
    """The rule by which XRSTORS has refused an area."""
    cdef const char* rule = _header_fault(area, supported)
    cdef size_t offset = 0
    if (rule == NULL and _offset(layout, _load(area, HEADER + 8), &offset) == LBR_OK
            and offset + ENTRIES <= size):
        rule = _component_fault(
            state, area + offset, min(size - offset, <size_t> layout.size[LBR_COMPONENT]))
    return _told(rule)


def component(LbrState state not None):
    """Component 15 of `state`: CTL, DEPTH, LER and the entries below DEPTH.

    Returns
    -------
    bytes
        40 + 24 * depth bytes (SDM vol. 1, 13.5.12).

    Raises
    ------
    ValueError
        In the legacy flavour, which is not XSAVE-managed.
    """
    cdef uint8_t block[LBR_COMPONENT_SIZE]
    memset(block, 0, sizeof(block))
    _raise(lbr_pack(state.state, block, sizeof(block)), state.state, "state", sizeof(block))
    return <bytes> (<char*> block)[:ENTRIES + sizeof(lbr_entry) * state.state.depth]


def restore_component(LbrState state not None, component):
    """Restore from the bytes of component 15, as XRSTORS does when XSTATE_BV[15] is set.

    A component saved at another DEPTH loads CTL and LER, zeroes all records and leaves DEPTH
    (SDM vol. 1, 13.12).

    Raises
    ------
    Fault
        Reserved bits of CTL or DEPTH are set; the state is as it was.
    ValueError
        The bytes end before the entries that the saved DEPTH announces do.
    """
    cdef Py_buffer view
    cdef int result
    acquire_bytes(component, &view, "component", False)
    try:
        result = lbr_unpack(state.state, view.buf, <size_t> view.len)
        rule = ""
        if result == LBR_GP:
            rule = _told(_component_fault(state.state, view.buf, <size_t> view.len))
        _raise(result, state.state, "component", view.len, rule)
    finally:
        PyBuffer_Release(&view)


cdef int _locate(Py_buffer* view, object offset, object address, Py_ssize_t* start) except -1:
    cdef uint64_t at = unsigned(offset, "offset", <uint64_t> 1 << 62)
    cdef uint64_t linear = at if address is None else unsigned(
        address, "address", <uint64_t> -1)
    if at > <uint64_t> view.len:
        raise ValueError(f"offset: {at} lies beyond the area's {view.len} bytes")
    if linear % 64:
        raise Fault(f"{'offset' if address is None else 'address'}: {linear:#x} is not on a "
                    "64-byte boundary")
    start[0] = <Py_ssize_t> at
    return 0


def xsaves(LbrState state not None, area, rfbm=1 << LBR_COMPONENT, *, offset=0, address=None,
           xinuse=0, sizes=None, aligned=0):
    """XSAVES of component 15 and the header into a compacted area (SDM vol. 1, 13.11).

    Parameters
    ----------
    area : writable buffer
    rfbm : int
        EDX:EAX & (XCR0 | IA32_XSS).
    offset : int
        Where the area starts in the buffer, in bytes.
    address : int or None
        The guest's linear address of the area; `offset` if left out.  #GP unless a multiple
        of 64.
    xinuse : int
        XINUSE of the other components, which the caller saves.
    sizes : mapping of int to int
        Bytes of each other component in `rfbm` above 1 (CPUID.0DH.i:EAX).
    aligned : int
        Bit i: component i starts on a 64-byte boundary (CPUID.0DH.i:ECX[1]).

    Raises
    ------
    Fault
        The address is not aligned.
    ValueError
        The area is too short, or a component has no size; nothing was written.
    """
    cdef Py_buffer view
    cdef Py_ssize_t start = 0
    cdef uint64_t bits = unsigned(rfbm, "rfbm", <uint64_t> -1)
    cdef uint64_t others = unsigned(xinuse, "xinuse", <uint64_t> -1)
    cdef lbr_xsave_layout layout = _layout_from(sizes, aligned)
    acquire_bytes(area, &view, "area", True)
    try:
        _locate(&view, offset, address, &start)
        _raise(lbr_xsaves(state.state, <uint8_t*> view.buf + start, <size_t> (view.len - start),
                          &layout, bits, others), state.state, "area", view.len - start)
    finally:
        PyBuffer_Release(&view)


def xrstors(LbrState state not None, area, rfbm=1 << LBR_COMPONENT, *, offset=0, address=None,
            supported=1 << LBR_COMPONENT | 3, sizes=None, aligned=0):
    """XRSTORS of component 15 from a compacted area (SDM vol. 1, 13.12).

    Parameters
    ----------
    area : buffer
    rfbm : int
        EDX:EAX & (XCR0 | IA32_XSS).
    supported : int
        XCR0 | IA32_XSS.
    offset, address, sizes, aligned
        As in `xsaves`.

    Raises
    ------
    Fault
        Unaligned address, refused header, reserved bits in the component; the state is as it
        was, which the manual permits.
    ValueError
        The area is too short, or a component has no size.
    """
    cdef Py_buffer view
    cdef Py_ssize_t start = 0
    cdef const uint8_t* at
    cdef size_t size
    cdef int result
    cdef uint64_t bits = unsigned(rfbm, "rfbm", <uint64_t> -1)
    cdef uint64_t offered = unsigned(supported, "supported", <uint64_t> -1)
    cdef lbr_xsave_layout layout = _layout_from(sizes, aligned)
    acquire_bytes(area, &view, "area", False)
    try:
        _locate(&view, offset, address, &start)
        at, size = <const uint8_t*> view.buf + start, <size_t> (view.len - start)
        result = lbr_xrstors(state.state, at, size, &layout, bits, offered)
        rule = ""
        if result == LBR_GP:
            rule = _area_fault(state.state, at, size, &layout, offered)
        _raise(result, state.state, "area", view.len - start, rule)
    finally:
        PyBuffer_Release(&view)
