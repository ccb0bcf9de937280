"""The compiled level of `pylbr.cpu.Processor`, as host and hypervisor drive it."""

cimport cython
from libc.string cimport memcpy, memset

from lbrcore.control cimport lbr_set_frozen, lbr_write_ctl, lbr_write_depth
from lbrcore.lbr cimport (
    LBR_ARCHITECTURAL, LBR_LEGACY, LbrState, lbr_check, lbr_clear, lbr_get, lbr_read_ler,
    lbr_record, lbr_reset, lbr_slot, lbr_state, lbr_write_entry, lbr_write_ler,
)
from lbrcore.xsave cimport LBR_COMPONENT_SIZE, lbr_pack, lbr_unpack
from pylbr.cpu.debugctl cimport lbr_freeze, lbr_set_debugctl


cdef inline void _enter(
    lbr_state* lbr, uint64_t* debugctl, bint switched, const Vmcs* vmcs
) noexcept nogil:
    """VM entry loads DEBUGCTL, and IA32_LBR_CTL if control 21 asks for it (spec 4)."""
    lbr_set_debugctl(lbr, debugctl, switched, vmcs.debugctl)
    if vmcs.load_lbr_ctl and not switched:
        lbr_write_ctl(lbr, vmcs.lbr_ctl)


cdef inline void _leave(
    lbr_state* lbr, uint64_t* debugctl, bint switched, Vmcs* vmcs
) noexcept nogil:
    """VM exit saves and zeroes DEBUGCTL; IA32_LBR_CTL is saved, and cleared by control 26.

    That the field is always saved is `pylbr.arch.choices.VM_EXIT_ALWAYS_SAVES_LBR_CTL`.
    """
    vmcs.debugctl = debugctl[0]
    lbr_set_debugctl(lbr, debugctl, switched, 0)
    if switched:
        return
    vmcs.lbr_ctl = lbr.ctl
    if vmcs.clear_lbr_ctl:
        lbr_write_ctl(lbr, 0)


cdef inline bint _switched(const Hardware* hw) noexcept nogil:
    return hw.lbr.config.flavour == LBR_LEGACY


cdef void hw_set_debugctl(Hardware* hw, uint64_t value) noexcept nogil:
    """WRMSR IA32_DEBUGCTL."""
    hw.msr_accesses += 1
    lbr_set_debugctl(&hw.lbr, &hw.debugctl, _switched(hw), value)


cdef void hw_set_ctl(Hardware* hw, uint64_t value) noexcept nogil:
    """WRMSR of IA32_LBR_CTL, or MSR_LBR_SELECT, with a value known to be good."""
    hw.msr_accesses += 1
    lbr_write_ctl(&hw.lbr, value)


cdef uint64_t hw_ctl(Hardware* hw) noexcept nogil:
    hw.msr_accesses += 1
    return hw.lbr.ctl


cdef void hw_write_depth(Hardware* hw, uint64_t depth) noexcept nogil:
    """WRMSR of IA32_LBR_DEPTH: zeroes the records, not CTL, not LER."""
    hw.msr_accesses += 1
    lbr_write_depth(&hw.lbr, depth)


cdef void hw_init(Hardware* hw) noexcept nogil:
    """XRSTORS with XSTATE_BV[15] = 0: CTL, LER and all records 0, DEPTH as it is (spec 2.4)."""
    cdef lbr_entry zero
    hw.xsaves += 1
    memset(&zero, 0, sizeof(zero))
    lbr_write_ctl(&hw.lbr, 0)
    lbr_clear(&hw.lbr)
    lbr_write_ler(&hw.lbr, &zero)


cdef void hw_clear_ler(Hardware* hw) noexcept nogil:
    cdef lbr_entry zero
    hw.msr_accesses += 3
    memset(&zero, 0, sizeof(zero))
    lbr_write_ler(&hw.lbr, &zero)


cdef void hw_save(Hardware* hw, Image* image) noexcept nogil:
    """XSAVES of component 15; nothing is cleared (spec 2.3)."""
    hw.xsaves += 1
    memset(image, 0, sizeof(Image))
    lbr_pack(&hw.lbr, image, LBR_COMPONENT_SIZE)


cdef void hw_restore(Hardware* hw, const Image* image) noexcept nogil:
    """XRSTORS of component 15, CTL and all (spec 2.4)."""
    hw.xsaves += 1
    lbr_unpack(&hw.lbr, image, LBR_COMPONENT_SIZE)


cdef void hw_peek(const Hardware* hw, Image* image) noexcept nogil:
    """What is in the registers, without touching them: for checks and for a reader."""
    cdef uint32_t i
    memset(image, 0, sizeof(Image))
    image.ctl = hw.lbr.ctl
    image.depth = hw.lbr.depth
    lbr_read_ler(&hw.lbr, &image.ler)
    for i in range(hw.lbr.depth):
        image.entry[i] = lbr_get(&hw.lbr, i)


cdef void hw_save_msrs(Hardware* hw, Image* image) noexcept nogil:
    """Read the records one MSR at a time, as perf does without XSAVES: up to FROM == 0, and
    neither LER nor CTL (spec 5.2)."""
    cdef uint32_t i
    memset(image, 0, sizeof(Image))
    image.depth = hw.lbr.depth
    image.ctl = hw.lbr.ctl
    hw.msr_accesses += 1
    for i in range(hw.lbr.depth):
        image.entry[i] = lbr_get(&hw.lbr, i)
        hw.msr_accesses += 3
        if not image.entry[i].from_:
            break


cdef void hw_restore_msrs(Hardware* hw, const Image* image) noexcept nogil:
    """Write all records back; those that the image lacks become empty."""
    cdef uint32_t i
    hw.msr_accesses += 3 * hw.lbr.depth
    for i in range(hw.lbr.depth):
        lbr_slot(&hw.lbr, hw.lbr.head - i)[0] = image.entry[i]


cdef void hw_reset_records(Hardware* hw) noexcept nogil:
    """perf's reset: zeroes to every record, or one write of DEPTH."""
    if hw.lbr.config.flavour == LBR_ARCHITECTURAL:
        hw_write_depth(hw, hw.lbr.depth)
    else:
        hw.msr_accesses += 3 * hw.lbr.depth
        lbr_clear(&hw.lbr)


cdef void hw_write_entry(Hardware* hw, uint32_t i, const lbr_entry* entry) noexcept nogil:
    hw.msr_accesses += 3
    lbr_write_entry(&hw.lbr, i, entry)


cdef void hw_vm_entry(Hardware* hw, const Vmcs* vmcs) noexcept nogil:
    hw.entries += 1
    _enter(&hw.lbr, &hw.debugctl, _switched(hw), vmcs)


cdef void hw_vm_exit(Hardware* hw, Vmcs* vmcs) noexcept nogil:
    hw.exits += 1
    _leave(&hw.lbr, &hw.debugctl, _switched(hw), vmcs)


cdef void hw_freeze(Hardware* hw) noexcept nogil:
    """A PMI: with architectural LBRs the PMU is of version 4 up, with legacy ones it is older."""
    lbr_freeze(&hw.lbr, &hw.debugctl, _switched(hw), not _switched(hw))


cdef bint image_empty(const Image* image) noexcept nogil:
    cdef int i
    for i in range(32):
        if image.entry[i].from_ | image.entry[i].to:
            return False
    return True


cdef void image_clear(Image* image) noexcept nogil:
    """Zero the records and LER; CTL and DEPTH stay."""
    memset(&image.entry[0], 0, sizeof(image.entry))
    memset(&image.ler, 0, sizeof(image.ler))


@cython.final
cdef class Facility:
    """Facility(lbr, switched)\n--\n
    The LBRs of one `Processor` with IA32_DEBUGCTL, and the transitions that touch either.

    Parameters
    ----------
    lbr : LbrState
    switched : bool
        IA32_DEBUGCTL.LBR switches the facility: Intel's legacy LBRs.

    Attributes
    ----------
    debugctl : int
        IA32_DEBUGCTL as it reads.
    """

    def __cinit__(self, LbrState lbr not None, bint switched):
        self.lbr, self.switched = lbr, switched

    def copy(self):
        """An independent facility in the same state."""
        cdef Facility other = Facility(self.lbr.copy(), self.switched)
        other.debugctl = self.debugctl
        return other

    def set_debugctl(self, uint64_t value):
        """WRMSR of IA32_DEBUGCTL with a value known to be good."""
        lbr_set_debugctl(self.lbr.state, &self.debugctl, self.switched, value)

    def set_frozen(self, bint frozen):
        """LBR_FRZ, or another reason why nothing is recorded."""
        lbr_set_frozen(self.lbr.state, frozen)

    def freeze(self, bint streamlined):
        """A PMI, as IA32_DEBUGCTL asks; True: LBR_FRZ is to be set.

        `streamlined` is PMU version 4 up; an older one clears IA32_DEBUGCTL.LBR.
        """
        return lbr_freeze(self.lbr.state, &self.debugctl, self.switched, streamlined)

    def vm_entry(self, debugctl, lbr_ctl):
        """VM entry: load IA32_DEBUGCTL and IA32_LBR_CTL; None leaves the register alone."""
        cdef Vmcs vmcs
        memset(&vmcs, 0, sizeof(vmcs))
        vmcs.debugctl = self.debugctl if debugctl is None else <uint64_t> debugctl
        vmcs.load_lbr_ctl = lbr_ctl is not None
        vmcs.lbr_ctl = 0 if lbr_ctl is None else <uint64_t> lbr_ctl
        _enter(self.lbr.state, &self.debugctl, self.switched, &vmcs)

    def vm_exit(self, bint clear_lbr_ctl):
        """VM exit: zero IA32_DEBUGCTL, and clear IA32_LBR_CTL if asked; the two before."""
        cdef Vmcs vmcs
        memset(&vmcs, 0, sizeof(vmcs))
        vmcs.clear_lbr_ctl = clear_lbr_ctl
        _leave(self.lbr.state, &self.debugctl, self.switched, &vmcs)
        return vmcs.debugctl, vmcs.lbr_ctl


@cython.final
cdef class HardwareState:
    """HardwareState(config)\n--\n
    The registers that the search copies, for Python: one processor, operations as methods.

    Parameters
    ----------
    config : lbrcore.config.LbrConfig
    """

    cdef Hardware hw
    cdef Vmcs vmcs

    def __cinit__(self, config):
        cdef LbrState fresh = LbrState(config)
        memset(&self.hw, 0, sizeof(self.hw))
        memset(&self.vmcs, 0, sizeof(self.vmcs))
        self.hw.lbr.config = fresh.state.config
        lbr_reset(&self.hw.lbr)

    def set_debugctl(self, uint64_t value):
        """WRMSR of IA32_DEBUGCTL."""
        hw_set_debugctl(&self.hw, value)

    def set_ctl(self, uint64_t value):
        """WRMSR of IA32_LBR_CTL; of MSR_LBR_SELECT, legacy LBRs."""
        hw_set_ctl(&self.hw, value)

    def write_depth(self, uint64_t value):
        """WRMSR of IA32_LBR_DEPTH, which clears the records."""
        hw_write_depth(&self.hw, value)

    def write_entry(self, uint32_t i, uint64_t from_, uint64_t to, uint64_t info):
        """WRMSR of the three registers of record `i`; 0 is the newest."""
        cdef lbr_entry entry
        entry.from_, entry.to, entry.info = from_, to, info
        hw_write_entry(&self.hw, i, &entry)

    def initialise(self):
        """XRSTORS of the initial state."""
        hw_init(&self.hw)

    def save(self):
        """XSAVES: component 15, 808 bytes."""
        cdef Image image
        hw_save(&self.hw, &image)
        return <bytes> (<char*> &image)[:sizeof(image)]

    def restore(self, const uint8_t[::1] component):
        """XRSTORS of a component that `save` returned.

        Raises
        ------
        ValueError
            It has another size.
        """
        cdef Image image
        if <size_t> component.shape[0] != sizeof(image):
            raise ValueError(f"component: has {component.shape[0]} bytes, not {sizeof(image)}")
        memcpy(&image, &component[0], sizeof(image))
        hw_restore(&self.hw, &image)

    def branch(self, uint8_t cls, uint64_t from_, uint64_t to, uint8_t cpl_from, uint8_t cpl_to):
        """Record a branch.

        Parameters
        ----------
        cls : int
            `BranchClass`.
        from_, to : int
        cpl_from, cpl_to : int
            Privilege level before and after.

        Raises
        ------
        ValueError
            Class or CPL out of range.
        """
        cdef lbr_branch branch
        memset(&branch, 0, sizeof(branch))
        branch.cls = cls
        branch.from_, branch.to = from_, to
        branch.cpl_from, branch.cpl_to = cpl_from, cpl_to
        if lbr_check(&branch):
            lbr_record(&self.hw.lbr, &branch)
        else:
            raise ValueError("branch: class or CPL out of range")

    def vm_entry(self, uint64_t debugctl, uint64_t lbr_ctl, bint load, bint clear):
        """VM entry with these guest fields; `load` and `clear` are VMX controls for
        IA32_LBR_CTL, at entry and at the following exit."""
        self.vmcs.debugctl, self.vmcs.lbr_ctl = debugctl, lbr_ctl
        self.vmcs.load_lbr_ctl, self.vmcs.clear_lbr_ctl = load, clear
        hw_vm_entry(&self.hw, &self.vmcs)

    def vm_exit(self):
        """VM exit; returns the guest's IA32_DEBUGCTL and IA32_LBR_CTL as saved."""
        hw_vm_exit(&self.hw, &self.vmcs)
        return self.vmcs.debugctl, self.vmcs.lbr_ctl

    def freeze(self):
        """A PMI: freeze as IA32_DEBUGCTL asks."""
        hw_freeze(&self.hw)

    def acknowledge(self):
        """Clear LBR_FRZ."""
        lbr_set_frozen(&self.hw.lbr, 0)

    def registers(self):
        """CTL, DEBUGCTL, DEPTH, LER and the records, newest first."""
        cdef Image image
        hw_peek(&self.hw, &image)
        return (image.ctl, self.hw.debugctl, image.depth,
                (image.ler.from_, image.ler.to, image.ler.info),
                [(image.entry[i].from_, image.entry[i].to, image.entry[i].info)
                 for i in range(image.depth)])
