"""The policy that ``pylbr verify --new-policy NAME.pyx`` writes: the template in Cython."""

from __future__ import annotations

from typing import Final

__all__ = ["TEXT"]

TEXT: Final = '''\
"""`template`: perf asks, and the hypervisor yields at its next safe point.

Run it, compiled each time that it is named:

    pylbr verify ./template.pyx                   every interleaving, and what breaks
    pylbr verify ./template.pyx --story "guest wrmsr LBR_CTL; IPI opens cpu-exclude; vm-entry"

Leave out a line and run it again: the story of what then breaks is printed.

A hook runs one micro-step.  One that takes `pc` is called with 0 and returns the number with which
it is called next, as the next micro-step, or DONE: an interrupt may come in between where they are
on, an NMI anywhere.  What a policy remembers it keeps in `c` and `v`, never in itself: the
search goes back and forth between states.

hook                                                          when                            irqs
void perf_update(self, System* s, Cpu* c)                     its events have changed         off
void task_out(self, System* s, Cpu* c)                        a task leaves: perf's part      off
int vcpu_put(self, System* s, Cpu* c, Vcpu* v, int pc)        it is a vCPU's thread: KVM's    off
void task_in(self, System* s, Cpu* c)                         a task comes: perf's part       off
int vcpu_load(self, System* s, Cpu* c, Vcpu* v, int pc)       it is a vCPU's thread: KVM's    on
int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc)      the run loop serves requests    on
bint pending(self, System* s, Cpu* c, Vcpu* v)                must it do so once more?        off
int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc)    the last steps before VM entry  off
int after_exit(self, System* s, Cpu* c, Vcpu* v, int pc)      the first steps after VM exit   off
int emulate(self, System* s, Cpu* c, Vcpu* v, int pc)         what exited is emulated         on
void pmi(self, System* s, Cpu* c)                             the host's PMI handler, an NMI  -
bint guest_traced(self, System* s, Cpu* c)                    are its branches the host's?    -
bint exits(self, System* s, Cpu* c, Vcpu* v, int instruction) does it exit?                   -

Each is declared as below, `noexcept nogil`; one that is not defined is that of `SingleOwner`, the
policies in which the registers have one owner at a time.  pylbr/arbitration/microsteps.pxd has all
hooks and what `s`, `c` and `v` hold, single_owner.pxd what `self` can do.
"""

from pylbr.arbitration.microsteps cimport (
    DONE, OWNER_GUEST, OWNER_NONE, Cpu, System, Vcpu, vcpu_index,
)
from pylbr.arbitration.single_owner cimport SingleOwner
from pylbr.host.perf cimport FILTER_EXCLUSION


cdef class Template(SingleOwner):
    """Ask, and be served at the next VM entry or when the vCPU is put."""

    def __init__(self):
        self.name = "template"
        # What it documents: records may be missing from a guest's stack, and from a sample
        self.guest_short = self.host_short = True
        self.serves_at_entry = True         # a VM entry is a safe point: P22 holds it to that
        self.sharing = FILTER_EXCLUSION     # events that differ in exclude_guest do not share
        self.nested_controls = self.guest_pebs = True
        # Properties that it claims; without this line all of them, and `pylbr verify` exits with 1
        # if one is broken.
        # self.claims = ("P1", "P2")

    cdef int safe_point(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """If perf waits, give it the registers: save, wipe, attach."""
        if pc == 0 and not (c.wanted and c.owner == OWNER_GUEST + vcpu_index(s, v)):
            return DONE
        return self.yield_guest(s, c, v, pc)

    cdef bint pending(self, System* s, Cpu* c, Vcpu* v) noexcept nogil:
        """An interrupt may have asked since the safe point."""
        return c.wanted

    cdef int before_entry(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil:
        """The guest gets registers without an owner, or is entered without."""
        if c.owner == OWNER_NONE and v.uses:
            self.load_guest(s, c, v)
        if c.owner == OWNER_GUEST + vcpu_index(s, v):
            self.admit(c, v)
        else:
            self.keep_out(c, v)
        return DONE


POLICIES = {"template": Template}
'''
