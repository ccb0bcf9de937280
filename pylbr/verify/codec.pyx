"""States as canonical bytes, and back.

One visitor walks a `World` for both directions, so that what is written is what is read.
Two states that differ only in the numbering of processors or guests, or in which of their never
compared serial numbers the records carry, have one encoding: serials are renamed in order of
appearance, and of all orders of the processors and guests the one with the smallest bytes is taken.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from lbrcore.control cimport lbr_control_changed
from lbrcore.lbr cimport LBR_LEGACY, lbr_entry, lbr_get, lbr_read_ler, lbr_slot, lbr_write_ler
from pylbr.arbitration.microsteps cimport (
    MAX_CPUS, MAX_FRAMES, MAX_GUESTS, OP_SWITCH, OWNER_GUEST, Cpu, Frame, Vcpu,
)
from pylbr.arch.bits cimport CTL_CALL_STACK, CTL_CLASSES
from pylbr.cpu.hardware cimport CTL_ANY, CTL_STACK_USR, Hardware, Image
from pylbr.host.perf cimport EVENT_SLOTS, Event, PerfContext
from pylbr.verify.world cimport F_HOST_FREEZE, F_NESTED, F_PEBS, F_STACK, F_VPMI, Ideal

cdef enum:
    TORN = 0xFF
    MAX_SERIAL = 15

ctypedef struct Cursor:
    uint8_t* at
    bint writing
    bint renaming
    uint32_t features
    bint swapped                    # the two processors
    uint8_t order[MAX_GUESTS]       # order[n]: the guest that is called n
    uint8_t rank[MAX_GUESTS]        # its inverse
    uint8_t known[1 + MAX_GUESTS]   # serials named so far, per owner
    uint64_t names[1 + MAX_GUESTS][MAX_SERIAL]


cdef inline void _u8(Cursor* k, uint8_t* field) noexcept nogil:
    if k.writing:
        k.at[0] = field[0]
    else:
        field[0] = k.at[0]
    k.at += 1


cdef inline void _control(Cursor* k, uint64_t* field) noexcept nogil:
    """A control register: its low 15 bits, and whether branch classes are chosen: all, or those of
    a call stack."""
    if k.writing:
        k.at[0] = <uint8_t> (field[0] & 0xFF)
        k.at[1] = <uint8_t> ((field[0] >> 8) & 0x7F) | (0x80 if field[0] >> 16 else 0)
    else:
        field[0] = k.at[0] | <uint64_t> (k.at[1] & 0x7F) << 8
        if k.at[1] & 0x80:
            field[0] |= (CTL_STACK_USR if field[0] & CTL_CALL_STACK else CTL_ANY) & CTL_CLASSES
    k.at += 2


cdef inline void _who(Cursor* k, uint8_t* field, int base) noexcept nogil:
    """A field that is base + guest, or below base."""
    if not k.writing:
        field[0] = k.at[0]
    elif field[0] < base:
        k.at[0] = field[0]
    else:
        k.at[0] = <uint8_t> (base + k.rank[field[0] - base])
    k.at += 1


cdef uint8_t _serial(Cursor* k, int owner, uint64_t serial) noexcept nogil:
    cdef int i
    if not k.renaming:
        return <uint8_t> (serial & 15)
    for i in range(k.known[owner]):
        if k.names[owner][i] == serial:
            return <uint8_t> i
    if k.known[owner] == MAX_SERIAL:
        return MAX_SERIAL
    k.names[owner][k.known[owner]] = serial
    k.known[owner] += 1
    return k.known[owner] - 1


cdef void _record(Cursor* k, lbr_entry* entry) noexcept nogil:
    """0 empty; else owner + 1 in bits 7:5, kernel in bit 4, serial."""
    cdef uint64_t tag
    cdef int owner
    if k.writing:
        tag = entry.from_
        if tag == 0 and entry.to == 0:
            k.at[0] = 0
        elif entry.to != ~tag:
            k.at[0] = TORN
        else:
            owner = <int> (tag >> 40) - 1
            if owner:
                owner = 1 + k.rank[owner - 1]
            k.at[0] = <uint8_t> ((owner + 1) << 5 | ((tag >> 39) & 1) << 4
                                 | _serial(k, owner, tag & 0xFFFF))
    else:
        memset(entry, 0, sizeof(lbr_entry))
        if k.at[0]:
            owner = k.at[0] >> 5
            entry.from_ = (<uint64_t> owner << 40 | <uint64_t> ((k.at[0] >> 4) & 1) << 39
                           | (k.at[0] & 15))
            entry.to = ~entry.from_ if k.at[0] != TORN else 1
            if (k.at[0] & 15) >= k.known[owner - 1]:
                k.known[owner - 1] = (k.at[0] & 15) + 1
    k.at += 1


cdef void _image(Cursor* k, Image* image, int depth) noexcept nogil:
    cdef int i
    for i in range(depth):
        _record(k, &image.entry[i])
    _record(k, &image.ler)


cdef void _hardware(Cursor* k, Hardware* hw) noexcept nogil:
    cdef uint32_t i
    cdef lbr_entry entry
    for i in range(hw.lbr.depth):
        entry = lbr_get(&hw.lbr, i)
        _record(k, &entry)
        if not k.writing:
            lbr_slot(&hw.lbr, hw.lbr.head - i)[0] = entry
    lbr_read_ler(&hw.lbr, &entry)
    _record(k, &entry)
    _control(k, &hw.lbr.ctl)
    _control(k, &hw.debugctl)
    _u8(k, &hw.lbr.frozen)
    if not k.writing:
        lbr_write_ler(&hw.lbr, &entry)
        if hw.lbr.config.flavour == LBR_LEGACY:
            hw.lbr.enable = hw.debugctl & 1
        lbr_control_changed(&hw.lbr)


cdef void _event(Cursor* k, Event* event) noexcept nogil:
    cdef uint8_t byte = event.state | event.ran << 7
    _u8(k, &byte)
    event.state = byte & 0x7F
    event.ran = byte >> 7
    _u8(k, &event.flags)


cdef void _context(Cursor* k, PerfContext* context, int depth) noexcept nogil:
    cdef int i
    for i in range(EVENT_SLOTS):
        _event(k, &context.event[i])
    _u8(k, &context.saved_valid)
    if not context.saved_valid:
        memset(&context.saved, 0, sizeof(Image))
    if k.features & F_STACK:
        _u8(k, &context.saved_cut)
    _image(k, &context.saved, depth)
    _control(k, &context.saved.ctl)
    if not k.writing:
        context.saved.depth = depth


cdef void _frame(Cursor* k, Frame* frame) noexcept nogil:
    _u8(k, &frame.op)
    _u8(k, &frame.step)
    _u8(k, &frame.part)
    if frame.op == OP_SWITCH:
        _who(k, &frame.arg, 1)
    else:
        _u8(k, &frame.arg)


cdef void _cpu(Cursor* k, Cpu* c, int depth) noexcept nogil:
    cdef int i
    _hardware(k, &c.hw)
    _context(k, &c.perf.context, depth)
    _context(k, &c.host_task, depth)
    _u8(k, &c.perf.users)
    _u8(k, &c.perf.hosts)
    if k.features & F_PEBS:
        _u8(k, &c.perf.pebs)
    _u8(k, &c.perf.flags)
    _u8(k, &c.perf.vlbr)
    _u8(k, &c.perf.granted)
    _u8(k, &c.perf.cut)
    _control(k, &c.perf.programmed)
    _u8(k, &c.frames)
    for i in range(MAX_FRAMES - 1):
        if i < c.frames:
            _frame(k, &c.frame[i])
        elif k.writing:
            memset(k.at, 0, 4)
            k.at += 4
        else:
            k.at += 4
    _who(k, &c.task, 1)
    _who(k, &c.guest, 1)
    _who(k, &c.owner, OWNER_GUEST)
    _u8(k, &c.irqs)
    _u8(k, &c.wanted)
    if k.features & F_HOST_FREEZE:
        _u8(k, &c.pmi)
        _u8(k, &c.perf.freeze)
        _u8(k, &c.perf.frozen)
    _u8(k, &c.scratch)
    _record(k, &c.operand)


cdef void _vcpu(Cursor* k, Vcpu* v, int depth) noexcept nogil:
    cdef uint8_t bits = (v.vmcs.load_lbr_ctl | v.vmcs.clear_lbr_ctl << 1 | v.uses << 2
                         | v.passthrough << 3 | v.xss_exit << 4 | v.lost << 5 | v.cleanup << 6
                         | v.smm << 7)
    _u8(k, &bits)
    v.vmcs.load_lbr_ctl = bits & 1
    v.vmcs.clear_lbr_ctl = (bits >> 1) & 1
    v.uses = (bits >> 2) & 1
    v.passthrough = (bits >> 3) & 1
    v.xss_exit = (bits >> 4) & 1
    v.lost = (bits >> 5) & 1
    v.cleanup = (bits >> 6) & 1
    v.smm = bits >> 7
    bits = (MAX_CPUS + 1 - v.loaded if k.swapped and v.loaded else v.loaded) | v.pebs_lbrs << 7
    _u8(k, &bits)
    if not k.writing:
        v.loaded = bits & 0x7F
        v.pebs_lbrs = bits >> 7
    _control(k, &v.vmcs.debugctl)
    _control(k, &v.vmcs.lbr_ctl)
    _control(k, &v.ctl)
    _control(k, &v.debugctl)
    _control(k, &v.smm_ctl)
    _control(k, &v.snapshot)
    _control(k, &v.image.ctl)
    _image(k, &v.image, depth)
    if not k.writing:
        v.image.depth = depth
    if k.features & F_VPMI:
        _u8(k, &v.pmi)
        _u8(k, &v.frozen)
    if k.features & F_NESTED:
        _u8(k, &v.level2)
        _control(k, &v.vmcs12.control)
        _control(k, &v.vmcs12.debugctl)
        _control(k, &v.other_ctl)


cdef void _ideal(Cursor* k, Ideal* ideal, int depth) noexcept nogil:
    cdef uint8_t bits = (ideal.on | ideal.user_only << 1 | ideal.smm_on << 2
                         | ideal.call_stack << 4)
    _u8(k, &bits)
    ideal.on = bits & 1
    ideal.user_only = (bits >> 1) & 1
    ideal.smm_on = (bits >> 2) & 3
    ideal.call_stack = bits >> 4
    _control(k, &ideal.image.ctl)
    _image(k, &ideal.image, depth)
    if not k.writing:
        ideal.image.depth = depth
    if k.features & F_VPMI:
        _u8(k, &ideal.freeze)
    if k.features & (F_VPMI | F_HOST_FREEZE):
        _u8(k, &ideal.frozen)
    if k.features & F_NESTED:
        _u8(k, &ideal.level2)
        _control(k, &ideal.vmcs12)


cdef void _world(Cursor* k, World* w) noexcept nogil:
    cdef int i, g, depth = w.system.depth
    k.features = w.system.features
    for i in range(w.system.cpus):
        g = 1 - i if k.swapped else i
        _cpu(k, &w.system.cpu[g], depth)
        _ideal(k, &w.host[g], depth)
        if k.features & F_STACK:
            _ideal(k, &w.kept_host[g], depth)
    for i in range(w.system.guests):
        g = k.order[i]
        _vcpu(k, &w.system.vcpu[g], depth)
        _context(k, &w.system.thread[g], depth)
        _ideal(k, &w.guest[g], depth)
        if k.features & F_STACK:
            _ideal(k, &w.kept[g], depth)


cdef int _write(
    World* w, uint8_t* out, const uint8_t* order, bint swapped, bint renaming
) noexcept nogil:
    cdef Cursor k
    cdef int i
    memset(&k, 0, sizeof(k))
    k.at = out
    k.writing = True
    k.renaming = renaming
    k.swapped = swapped
    for i in range(w.system.guests):
        k.order[i] = order[i]
        k.rank[order[i]] = <uint8_t> i
    _world(&k, w)
    return <int> (k.at - out)


cdef bint _next_order(uint8_t* order, int n) noexcept nogil:
    """Next permutation in lexical order; False after the last."""
    cdef int i = n - 2, j = n - 1
    cdef uint8_t swap
    while i >= 0 and order[i] > order[i + 1]:
        i -= 1
    if i < 0:
        return False
    while order[j] < order[i]:
        j -= 1
    swap = order[i]
    order[i] = order[j]
    order[j] = swap
    i += 1
    j = n - 1
    while i < j:
        swap = order[i]
        order[i] = order[j]
        order[j] = swap
        i += 1
        j -= 1
    return True


cdef int encode(World* w, Policy policy, uint8_t* out, bint canonical) noexcept nogil:
    """Bytes of the state, at most MAX_STATE; as many for every state of a configuration."""
    cdef uint8_t order[MAX_GUESTS]
    cdef uint8_t other[MAX_STATE]
    cdef int i, length
    for i in range(MAX_GUESTS):
        order[i] = <uint8_t> i
    length = _write(w, out, order, False, canonical)
    while canonical:
        if w.system.cpus == MAX_CPUS:
            _write(w, other, order, True, True)
            if memcmp(other, out, length) < 0:
                memcpy(out, other, length)
        if not _next_order(order, w.system.guests):
            break
        _write(w, other, order, False, True)
        if memcmp(other, out, length) < 0:
            memcpy(out, other, length)
    return length


cdef void decode(World* w, Policy policy, const uint8_t* state) noexcept nogil:
    """Into a world of the same configuration; what the bytes do not hold is left as it is."""
    cdef Cursor k
    cdef int i
    memset(&k, 0, sizeof(k))
    k.at = <uint8_t*> state
    for i in range(w.system.guests):
        k.order[i] = k.rank[i] = <uint8_t> i
    _world(&k, w)
    for i in range(1 + w.system.guests):
        w.serial[i] = k.known[i]
