"""Access of a guest beside a host to its LBR registers: accessors for `pylbr.cpu.msr.dispatch`.

An access that the policy lets pass goes to the registers as on a processor alone.  Another one is
a VM exit, the policy's emulation and a VM entry; what a reader is shown is put into a view, a
facility of its own, and read from there by the model's own accessor.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from lbrcore.control cimport lbr_write_ctl, lbr_write_depth, lbr_write_tos
from lbrcore.lbr cimport LBR_OK, LbrState, lbr_entry, lbr_slot, lbr_state
from pylbr.arbitration.microsteps cimport (
    GUEST_DEPTH, GUEST_DISABLE, GUEST_ENABLE, GUEST_READ, GUEST_USER_FILTER, GUEST_WRITE,
)
from pylbr.arch.bits cimport CTL_LBREN, DEBUGCTL_LBR
from pylbr.cpu.hardware cimport Facility, Image
from pylbr.embed.contended_cpu cimport LER, ContendedCpu

from pylbr.embed.host_side import HOST_FROM, OTHER_FROM

cdef enum Kind:
    CONTROL, SELECT, DEPTH, TOS, RECORD, LAST_EXCEPTION, DEBUGCTL

KINDS = {
    "lbr.ctl": CONTROL, "lbr.select": SELECT, "lbr.depth": DEPTH, "lbr.tos": TOS,
    "lbr.from": RECORD, "lbr.to": RECORD, "lbr.info": RECORD, "lbr.single": RECORD,
    "ler.from": LAST_EXCEPTION, "ler.to": LAST_EXCEPTION, "ler.info": LAST_EXCEPTION,
}
#: Legacy LBRs: IA32_DEBUGCTL switches them.
LEGACY_KINDS = {**KINDS, "debugctl": DEBUGCTL}

# Bits of an address that every format keeps, and that mark the branches of the host and of the other
# guest.
cdef int TAG_SHIFT = 32
cdef uint64_t TAG = HOST_FROM >> 32 & 0xFFFF, OTHER_TAG = OTHER_FROM >> 32 & 0xFFFF


@cython.final
cdef class ContendedAccessor:
    """ContendedAccessor(cpu, kind, msrs, read, write)\n--\n
    Read and write of one kind of register.

    Parameters
    ----------
    cpu : ContendedCpu
    kind : int
        Of `LEGACY_KINDS`.
    msrs : Msrs
        The guest's registers over a facility of their own, which shows what the policy shows.
    read, write : callable
        Of the model's own accessor.
    """

    cdef ContendedCpu cpu
    cdef LbrState view
    cdef Facility hardware          # of the guest's registers, for IA32_DEBUGCTL; and the bits
    cdef uint64_t writable          # of it that hold what is written
    cdef object msrs, own_read, own_write
    cdef int kind
    cdef bint hidden_by_pt          # Intel PT excludes LBRs on this model

    def __init__(self, ContendedCpu cpu not None, int kind, msrs not None, read, write):
        self.cpu, self.kind, self.msrs = cpu, kind, msrs
        self.view, self.own_read, self.own_write = msrs.lbr, read, write
        self.hidden_by_pt = msrs.model.pt_excludes_lbr

    def read(self, msrs, register):
        """RDMSR of `register`."""
        cdef const lbr_state* lbr = &self.cpu.system.cpu[0].hw.lbr
        cdef uint64_t number
        if self.kind == DEPTH or self.kind == DEBUGCTL:
            return self.own_read(msrs, register)
        if not self.cpu.intercepts(GUEST_READ):
            if not self.hidden_by_pt:
                if self.kind == CONTROL or self.kind == SELECT:
                    return lbr.ctl
                if self.kind == TOS:
                    return lbr.head & (lbr.depth - 1)
            value = self.own_read(msrs, register)
        elif self.kind == CONTROL:
            return self._shown_control()
        else:
            self._show(register)
            value = self.own_read(self.msrs, register)
        if self.kind == RECORD or self.kind == LAST_EXCEPTION:
            number = value
            number = number >> TAG_SHIFT & 0xFFFF
            self.cpu.leaked += number == TAG
            self.cpu.mixed += number == OTHER_TAG
        return value

    def write(self, msrs, register, value):
        """WRMSR of `value`, whose reserved bits have been checked."""
        cdef uint64_t number = value
        cdef int instruction
        if self.kind == CONTROL:
            instruction = GUEST_ENABLE if number & CTL_LBREN else GUEST_DISABLE
            if not self.cpu.intercepts(instruction):
                if lbr_write_ctl(&self.cpu.system.cpu[0].hw.lbr, number) != LBR_OK:
                    self.own_write(msrs, register, value)
                return
            self._set_control(number)
        elif self.kind == SELECT:
            if not self.cpu.intercepts(GUEST_USER_FILTER):
                self.own_write(msrs, register, value)
                return
            self._set_control(number)
        elif self.kind == DEPTH:
            if not self.cpu.intercepts(GUEST_DEPTH):
                if lbr_write_depth(&self.cpu.system.cpu[0].hw.lbr, number) != LBR_OK:
                    self.own_write(msrs, register, value)
                return
            if number != self.cpu.system.depth:  # raises: the guest has one depth
                self.own_write(self.msrs, register, value)
            self._reset()
        elif self.kind == DEBUGCTL:
            if self.hardware is None:
                self.hardware, self.writable = msrs.hardware, register.writable
            number &= self.writable
            self.hardware.debugctl = number
            self._set_debugctl(number)
        elif not self.cpu.intercepts(GUEST_WRITE):
            self.own_write(msrs, register, value)
        elif self.kind == TOS:
            self.own_write(self.msrs, register, value)
            self._set_tos(<uint32_t> number)
        else:
            self._modify(register, value)

    # Emulation: VM exit, the policy's steps, VM entry

    cdef uint64_t _shown_control(self) noexcept nogil:
        cdef uint64_t value
        self.cpu._leave()
        self.cpu._emulate(GUEST_READ)
        value = self.cpu.system.seen.image.ctl
        self.cpu._return()
        return value

    cdef int _place(self, register) except -2:
        """The record's number from the newest one in the view."""
        cdef int n
        if self.kind == LAST_EXCEPTION:
            return LER
        n = register.n
        if self.cpu.policy.legacy:
            n = <int> ((self.view.state.head - <uint32_t> n) & (self.view.state.depth - 1))
        return n

    cdef void _put(self, int n, const Image* image) noexcept nogil:
        """Put one record, or LER, into the view."""
        if n == LER:
            self.view.state.ler = image.ler
        elif n < <int> self.view.state.depth:
            lbr_slot(self.view.state, self.view.state.head - <uint32_t> n)[0] = image.entry[n]

    cdef int _show(self, register) except -1:
        cdef const Image* image = &self.cpu.system.seen.image
        self.cpu._leave()
        self.cpu._emulate(GUEST_READ)
        self.cpu._position(self.view)
        if self.kind == SELECT:
            lbr_write_ctl(self.view.state, image.ctl)
        elif self.kind != TOS:
            self._put(self._place(register), image)
        self.cpu._return()
        return 0

    cdef int _modify(self, register, value) except -1:
        cdef int n
        cdef lbr_entry entry
        self.cpu._leave()
        try:
            self.cpu._emulate(GUEST_READ)
            self.cpu._position(self.view)
            n = self._place(register)
            self._put(n, &self.cpu.system.seen.image)
            self.own_write(self.msrs, register, value)
            entry = self.view.state.ler if n == LER else lbr_slot(
                self.view.state, self.view.state.head - <uint32_t> n)[0]
            self.cpu._write(n, &entry)
        finally:
            self.cpu._return()
        return 0

    cdef void _set_control(self, uint64_t value) noexcept nogil:
        self.cpu._leave()
        self.cpu._control(value)
        self.cpu._return()

    cdef void _set_debugctl(self, uint64_t value) noexcept nogil:
        self.cpu._leave()
        self.cpu._emulate(GUEST_ENABLE if value & DEBUGCTL_LBR else GUEST_DISABLE)
        self.cpu.system.vcpu[0].debugctl = value
        self.cpu._return()

    cdef void _set_tos(self, uint32_t value) noexcept nogil:
        self.cpu._leave()
        self.cpu._emulate(GUEST_READ)
        if self.cpu.system.cpu[0].perf.vlbr:
            lbr_write_tos(&self.cpu.system.cpu[0].hw.lbr, value)
        self.cpu._return()

    cdef void _reset(self) noexcept nogil:
        self.cpu._leave()
        self.cpu._emulate(GUEST_DEPTH)
        self.cpu._return()
