"""L1 as a hypervisor: its VM entries and what ends them, as L0 emulates them."""

from pylbr.kvm.vcpu cimport Vcpu

cdef void nested_entry(Vcpu* v, bint controls, bint legacy, bint keep=*) noexcept nogil
cdef void nested_exit(Vcpu* v, bint legacy, bint keep=*) noexcept nogil
