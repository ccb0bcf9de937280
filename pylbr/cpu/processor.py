"""The logical processor: its parts together, CPUID, XSAVES and XRSTORS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lbrcore import Fault, xsave
from pylbr.arch.cpuid import cpuid
from pylbr.arch.features import CpuModel
from pylbr.arch.fields import ALL_ONES
from pylbr.arch.models import model as named
from pylbr.arch.xsave import COMPONENTS, LBR_COMPONENT, component_size
from pylbr.cpu.base import NO_EVENTS, Events
from pylbr.cpu.errors import InvalidOpcode
from pylbr.cpu.events import EventPath
from pylbr.cpu.state import ProcessorState, restore, take
from pylbr.cpu.vmx import Vmx
from pylbr.errors import GeneralProtection, UnsupportedFeature

__all__ = ["Processor"]


class Processor(EventPath, Vmx):
    """One logical processor.

    Parameters
    ----------
    model : CpuModel or str
        What it offers; a string names one of ``pylbr.arch.MODELS``.
    events : Events, optional
        Who is told of PMIs and PEBS records.

    Attributes
    ----------
    model : CpuModel
    lbr : LbrState
        The facility in the core.  Its records are for reading; control goes through WRMSR.
    layout : LbrFormat
        Legacy flavour: how FROM, TO and INFO registers hold a record.
    pmu : PmuState
    debugctl : int
        IA32_DEBUGCTL as it reads.
    xcr0 : int
    values : dict of int to int
        Registers that nothing else holds, by MSR number; absent: the reset value.
    siblings : tuple of Processor
        Other threads of a `Core` that share LBR_SELECT with this one.
    vmcs : Vmcs or None
        The VMCS in force; None outside of VMX non-root operation.
    in_smm, in_tsx : bool
    enclave : str
        "" outside, "in" inside an opt-in enclave, "out" inside an opt-out one.
    cs_base : int
        Subtracted from addresses where records hold effective IPs.
    long_mode : bool
        False: the upper halves of recorded addresses are 0.

    Notes
    -----
    Used by one thread at a time.  Nothing here reads the clock or the host.
    """

    def __init__(self, model: CpuModel | str, events: Events = NO_EVENTS) -> None:
        super().__init__(named(model) if isinstance(model, str) else model, events)
        self.xsave_sizes = {
            bit: component_size(self.model, bit) for bit in COMPONENTS
            if (self.model.xcr0 | self.model.xss) >> bit & 1
        }

    def copy(self) -> Processor:
        """An independent processor in the same state, alone on its core; a VMCS in force is
        copied too."""
        other = object.__new__(Processor)
        other.__dict__.update(self.__dict__)
        other.siblings = ()
        other.values = self.values.copy()
        other.lbr = self.lbr.copy()
        other.pmu = self.pmu.copy()
        other.vmcs = None if self.vmcs is None else self.vmcs.copy()
        return other

    def state(self) -> ProcessorState:
        """The state as frozen, plain data; nothing changes."""
        return take(self)

    @classmethod
    def from_state(cls, state: ProcessorState, events: Events = NO_EVENTS) -> Processor:
        """A processor in that state.

        Raises
        ------
        StateError
            For a value that the state's model cannot hold.
        """
        cpu = cls(state.model, events)
        restore(cpu, state)
        return cpu

    # CPUID and XSAVE

    def cpuid(self, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        """CPUID: EAX, EBX, ECX, EDX for EAX = `leaf` and ECX = `subleaf`."""
        return cpuid(self.model, leaf, subleaf, self.xcr0, self.xss)

    def xsetbv(self, value: int) -> None:
        """XSETBV of XCR0.

        Raises
        ------
        GeneralProtection
            For components that the model lacks or that must be set together.
        """
        bad = value & ~self.model.xcr0
        avx512, amx = value & 0xE0, value & 3 << 17
        if bad or not value & 1 or value & 6 == 4 or (avx512 and value & 0xE6 != 0xE6) or (
                amx and amx != 3 << 17):
            raise GeneralProtection("XCR0", 0, value, bad & ALL_ONES,
                                    "components that exist, x87 and whole groups only", "XSETBV")
        self.xcr0 = value

    def xsaves(self, area: bytearray | memoryview, offset: int = 0, rfbm: int = 1 << 15, *,
               address: int | None = None, xinuse: int = 0) -> None:
        """XSAVES as far as LBRs go: the header, and component 15 if `rfbm` asks for it.

        Parameters
        ----------
        area : writable buffer
        offset : int
            Where the area starts, in bytes.
        rfbm : int
            EDX:EAX; the instruction ands it with XCR0 | IA32_XSS.
        address : int, optional
            Linear address of the area, `offset` if left out.
        xinuse : int
            XINUSE of the other components, which the caller saves itself.

        Raises
        ------
        InvalidOpcode
            No XSAVES here, or not enabled for the guest.
        GeneralProtection
            The address is not on a 64-byte boundary.
        VmExit
            The XSS-exiting bitmap in force says so.
        ValueError
            The buffer is too short.
        """
        effective = self._before_xsaves(rfbm, restoring=False)
        try:
            xsave.xsaves(self.lbr, area, effective, offset=offset, address=address,
                         xinuse=xinuse, sizes=self.xsave_sizes, aligned=self._aligned())
        except Fault as fault:
            raise GeneralProtection("area", offset, None, 0, str(fault), "XSAVES") from None

    def xrstors(self, area: bytes | bytearray | memoryview, offset: int = 0,
                rfbm: int = 1 << 15, *, address: int | None = None) -> None:
        """XRSTORS as far as LBRs go; arguments and errors as `xsaves`.

        Raises
        ------
        GeneralProtection
            A refused header or reserved bits; the state is as it was.
        """
        effective = self._before_xsaves(rfbm, restoring=True)
        try:
            xsave.xrstors(self.lbr, area, effective, offset=offset, address=address,
                          supported=self.xcr0 | self.xss, sizes=self.xsave_sizes,
                          aligned=self._aligned())
        except Fault as fault:
            raise GeneralProtection("area", offset, None, 0, str(fault), "XRSTORS") from None

    def _before_xsaves(self, rfbm: int, restoring: bool) -> int:
        if not self.model.xss:
            raise InvalidOpcode(f"{self.model.name} has no XSAVES")
        if not self.model.xss >> LBR_COMPONENT & 1:
            raise UnsupportedFeature(
                f"{self.model.name}: XSAVES manages no LBRs; their caller saves the other state")
        self.intercept_xsaves(rfbm, restoring)
        return rfbm & (self.xcr0 | self.xss)

    def _aligned(self) -> int:
        return sum(1 << c.bit for c in COMPONENTS.values() if c.aligned)

    # Records

    def records(self) -> npt.NDArray[np.void]:
        """All records, newest first, as ``lbrcore.ENTRY_DTYPE``; a copy."""
        return self.lbr.records()

