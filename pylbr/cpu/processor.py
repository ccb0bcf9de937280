"""The logical processor: what it holds, RDMSR and WRMSR, CPUID, XSAVES and XRSTORS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lbrcore import Fault, xsave
from pylbr.arch import choices
from pylbr.arch.cpuid import cpuid
from pylbr.arch.features import CpuModel
from pylbr.arch.fields import ALL_ONES
from pylbr.arch.models import model as named
from pylbr.arch.register import MsrRegister
from pylbr.arch.xsave import COMPONENTS, LBR_COMPONENT, component_size
from pylbr.cpu.dispatch import Slot, known_elsewhere, slots
from pylbr.cpu.errors import InvalidOpcode
from pylbr.cpu.events import EventPath
from pylbr.cpu.facility import facility
from pylbr.cpu.pmu import CTR_FRZ, LBR_FRZ, PmuState
from pylbr.cpu.recording import NO_EVENTS, Events, Recording
from pylbr.cpu.state import ProcessorState, restore, take
from pylbr.cpu.vmx import Vmx
from pylbr.errors import GeneralProtection, UnsupportedFeature

__all__ = ["Processor"]

IA32_XSS = 0xDA0
IA32_RTIT_CTL = 0x570


class Processor(Recording, EventPath, Vmx):
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
    pmu : PmuState
    debugctl : int
        IA32_DEBUGCTL as it reads.
    xcr0 : int
    values : dict of int to int
        Registers that nothing else holds, by MSR number; absent: the reset value.
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
        self.model = named(model) if isinstance(model, str) else model
        self.events = events
        self._slots = slots(self.model)
        self.lbr = facility(self.model)
        self.pmu = PmuState(self.model)
        self.xsave_sizes = {
            bit: component_size(self.model, bit) for bit in COMPONENTS
            if (self.model.xcr0 | self.model.xss) >> bit & 1
        }
        self._clear()

    def _clear(self) -> None:
        """Everything but the facility as after a cold reset."""
        self.debugctl = 0
        self.xcr0 = 1
        self.values: dict[int, int] = {}
        self.vmcs = None
        self.in_smm = self.in_tsx = False
        self.smm_lbren = False
        self.smm_debugctl: int | None = None
        self.enclave, self.enclave_entry = "", 0
        self.cs_base, self.long_mode = 0, True
        self.pmu.reset()
        self.pmu_changed()
        self.sync()

    def copy(self) -> Processor:
        """An independent processor in the same state; a VMCS in force is copied too."""
        other = object.__new__(Processor)
        other.__dict__.update(self.__dict__)
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

    # Derived state

    @property
    def tracing(self) -> bool:
        """Intel PT is on: IA32_RTIT_CTL.TraceEn."""
        return bool(self.values.get(IA32_RTIT_CTL, 0) & 1)

    @property
    def xss(self) -> int:
        """IA32_XSS."""
        return self.values.get(IA32_XSS, 0)

    def sync(self) -> None:
        """Bring the facility's enable and freeze in line with what governs them."""
        if self.model.legacy:
            self.lbr.enable = bool(self.debugctl & 1)
        self.lbr.frozen = bool(
            self.pmu.status & LBR_FRZ or self.enclave == "out"
            or (self.model.pt_excludes_lbr and self.tracing)
        )

    def pmu_changed(self) -> None:
        """A control register of the PMU has changed."""
        self.pmu.changed()
        if self.model.arch and self.model.arch.event_logging:
            self.lbr.event_mask = self.pmu.logging()

    def set_status(self, value: int) -> None:
        """Set IA32_PERF_GLOBAL_STATUS and what follows from it."""
        changed = self.pmu.status ^ value
        self.pmu.status = value
        if changed & CTR_FRZ:
            self.pmu_changed()
        if changed & LBR_FRZ:
            self.sync()

    # MSRs

    def rdmsr(self, index: int, host: bool = False) -> int:
        """RDMSR; never changes anything.

        Parameters
        ----------
        index : int
            ECX.
        host : bool
            Initiated by the host (KVM_GET_MSRS): a register that some model has but this
            one lacks reads 0.

        Raises
        ------
        GeneralProtection
            No such register, or a record beyond the depth.
        VmExit
            The MSR bitmap in force says so.
        """
        slot = self._slots.get(index)
        if host or slot is None or self.vmcs is not None:
            return self._rdmsr_slowly(index, host)
        return slot.read(self, slot.register)

    def _rdmsr_slowly(self, index: int, host: bool) -> int:
        if not host and self.vmcs is not None:
            self.intercept_rdmsr(index)
        slot = self._slots.get(index)
        if slot is None:
            return self._absent(index, None, host)
        if host and self._beyond_depth(slot.register):
            return 0
        return slot.read(self, slot.register)

    def wrmsr(self, index: int, value: int, host: bool = False) -> None:
        """WRMSR.

        Parameters
        ----------
        index, value : int
            ECX and EDX:EAX.
        host : bool
            Initiated by the host (KVM_SET_MSRS): read-only registers may be written where
            that makes sense, absent ones take 0.

        Raises
        ------
        GeneralProtection
            With register, value, offending bits and rule; nothing has changed.
        VmExit
            The MSR bitmap in force says so.
        """
        slot = self._slots.get(index)
        if host or slot is None or self.vmcs is not None:
            return self._wrmsr_slowly(index, value, host)
        if not slot.guest_writes:
            raise self._read_only(slot, value)
        if value & slot.reserved:
            raise self._reserved(slot, value)
        return slot.write(self, slot.register, value)

    def _wrmsr_slowly(self, index: int, value: int, host: bool) -> None:
        if not host and self.vmcs is not None:
            self.intercept_wrmsr(index, value)
        slot = self._slots.get(index)
        if slot is None:
            self._absent(index, value, host)
            return
        if not host and not slot.guest_writes:
            raise self._read_only(slot, value)
        if value & slot.reserved:
            raise self._reserved(slot, value)
        if host and not value and self._beyond_depth(slot.register):
            return
        slot.write(self, slot.register, value)

    def _beyond_depth(self, register: MsrRegister) -> bool:
        """A record that the present depth does not have."""
        return (register.row.home in ("lbr.from", "lbr.to", "lbr.info")
                and register.n >= self.lbr.depth)

    @staticmethod
    def _reserved(slot: Slot, value: int) -> GeneralProtection:
        return GeneralProtection(
            slot.register.name, slot.register.index, value, value & slot.reserved & ALL_ONES,
            "reserved bits must be 0" if 0 <= value <= ALL_ONES else "a value has 64 bits")

    @staticmethod
    def _read_only(slot: Slot, value: int) -> GeneralProtection:
        return GeneralProtection(slot.register.name, slot.register.index, value, 0,
                                 "the register is read-only")

    def _absent(self, index: int, value: int | None, host: bool) -> int:
        if host and choices.HOST_ABSENT_READS_ZERO and not value and known_elsewhere(index):
            return 0
        raise GeneralProtection(f"MSR {index:#x}", index, value, 0,
                                f"{self.model.name} has no such register")

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
                                    "components that exist, x87 and whole groups only")
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
            raise GeneralProtection("XSAVES", offset, None, 0, str(fault)) from None

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
            raise GeneralProtection("XRSTORS", offset, None, 0, str(fault)) from None

    def _before_xsaves(self, rfbm: int, restoring: bool) -> int:
        if not self.model.xss:
            raise InvalidOpcode(f"{self.model.name} has no XSAVES")
        if not self.model.xss >> LBR_COMPONENT & 1:
            raise UnsupportedFeature(
                f"{self.model.name}: XSAVES manages no LBRs; their caller saves the other state")
        if self.vmcs is not None:
            self.intercept_xsaves(rfbm, restoring)
        return rfbm & (self.xcr0 | self.xss)

    def _aligned(self) -> int:
        return sum(1 << c.bit for c in COMPONENTS.values() if c.aligned)

    # Records

    def records(self) -> npt.NDArray[np.void]:
        """All records, newest first, as ``lbrcore.ENTRY_DTYPE``; a copy."""
        return self.lbr.records()

