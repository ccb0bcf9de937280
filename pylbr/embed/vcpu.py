"""A guest's processor whose LBRs a host shares, under a policy of `pylbr.arbitration`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lbrcore import LbrState
from pylbr.arbitration import Policy
from pylbr.arch import CpuModel
from pylbr.arch.bits import (
    DEBUGCTL_BTF,
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    DEBUGCTL_LBR,
    DEBUGCTL_TR,
    STATUS_LBR_FRZ,
)
from pylbr.cpu import Events, Processor, ProcessorState, xsave
from pylbr.cpu.facility import facility
from pylbr.cpu.hardware import Facility
from pylbr.cpu.msr.access import MsrAccess
from pylbr.cpu.msr.dispatch import Slot, slots
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import PmuState
from pylbr.cpu.saved.state import MsrState
from pylbr.embed.contended_accessor import KINDS, LEGACY_KINDS, ContendedAccessor
from pylbr.embed.contended_cpu import XSAVES, ContendedCpu
from pylbr.embed.host_side import HOST_FROM, OTHER_FROM

__all__ = ["VirtualProcessor", "guest_model"]

#: Bits of an address that every format keeps, and that mark branches of the host and of the other
#: guest.
_SHIFT, _TAG = np.uint64(32), np.uint64(HOST_FROM >> 32 & 0xFFFF)
_OTHER = np.uint64(OTHER_FROM >> 32 & 0xFFFF)


def guest_model(model: CpuModel) -> CpuModel:
    """`model` as a hypervisor offers it: the largest depth is the only one (spec 7)."""
    if model.arch is None or model.arch.fixed_depth:
        return model
    return replace(model, lbr=replace(
        model.arch, depth_bitmap=1 << model.arch.max_depth // 8 - 1))


class ContendedMsrs(Msrs):
    """A guest's registers, of which the LBRs are a host's, too.

    IA32_DEBUGCTL is the guest's own: the policy decides what of it reaches the processor.

    Parameters
    ----------
    model : CpuModel
    pmu : PmuState
    policy : Policy
    lost : bool
        Of a vCPU that comes from elsewhere: the policy there had reported lost records.

    Attributes
    ----------
    contended : ContendedCpu
    view : Msrs
        The same registers over a facility that shows what the policy shows.
    """

    def __init__(self, model: CpuModel, pmu: PmuState, policy: Policy, lost: bool = False
                 ) -> None:
        self.contended, self.lost = ContendedCpu(policy, facility(model)), lost
        self._legacy = model.legacy is not None
        super().__init__(model, pmu, Facility(self.contended.registers, False))
        self.view = Msrs(model, pmu)
        self.view.values = self.values

    def copy(self, pmu: PmuState) -> Msrs:
        """The registers of a processor that continues alone."""
        alone = Msrs(self.model, pmu)
        alone.values.update(self.values)
        alone.load(self.save())
        return alone

    def set_debugctl(self, value: int) -> None:
        self.hardware.set_debugctl(value)
        if not self._legacy:
            self.contended.freeze_on_pmi(bool(value & DEBUGCTL_FREEZE_LBRS_ON_PMI))
        elif self.contended.guest_debugctl & ~value & DEBUGCTL_LBR:
            self.contended.stop_recording()

    def sync(self) -> None:
        self.contended.freeze(bool(self.pmu.status & STATUS_LBR_FRZ))

    def freeze(self, streamlined: bool) -> bool:
        if not self.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI:
            return False
        if not streamlined:
            self.set_debugctl(self.debugctl & ~DEBUGCTL_LBR)
        return streamlined

    def stop_recording(self) -> None:
        self.contended.debug_exception()
        self.set_debugctl(self.debugctl & ~(DEBUGCTL_LBR | DEBUGCTL_BTF | DEBUGCTL_TR))

    def host_has_run(self) -> None:
        """Take over what the hypervisor has done to the guest meanwhile."""
        if self.model.legacy:
            self.hardware.set_debugctl(self.contended.guest_debugctl)

    # Records

    def shown(self) -> LbrState:
        self.contended.show(self.view.lbr)
        return self.view.lbr

    def xsaves(self, area: bytearray | memoryview, offset: int, rfbm: int, address: int | None,
               xinuse: int) -> None:
        lbr = self.lbr
        if rfbm & self.xss and self.contended.exits(XSAVES):
            lbr = self.view.lbr
            self.contended.read(lbr)
        xsave.xsaves(self.model, lbr, area, offset, rfbm & (self.xcr0 | self.xss), address,
                     xinuse)
        if rfbm & self.xss:
            self._count(np.append(lbr.records()["from"], np.uint64(lbr.ler[0])))

    def _count(self, sources: npt.NDArray[np.uint64]) -> None:
        """Whose records XSAVES has stored."""
        marks = sources >> _SHIFT & np.uint64(0xFFFF)
        self.contended.leaked += int(np.count_nonzero(marks == _TAG))
        self.contended.mixed += int(np.count_nonzero(marks == _OTHER))

    def xrstors(self, area: bytes | bytearray | memoryview, offset: int, rfbm: int,
                address: int | None) -> None:
        if not (rfbm & self.xss and self.contended.exits(XSAVES)):
            super().xrstors(area, offset, rfbm, address)
            return
        enabled = self.xcr0 | self.xss
        lbr = self.shown()
        xsave.xrstors(self.model, lbr, area, offset, rfbm & enabled, address, enabled)
        self.contended.restore(lbr)

    # Saved state

    def load(self, saved: MsrState) -> None:
        alone = Msrs(self.model, self.pmu)
        alone.values.update(self.values)
        alone.load(saved)
        self.xcr0 = alone.xcr0
        self.hardware.set_debugctl(alone.debugctl)
        self.contended.load(alone.lbr, self.lost)
        if self.model.legacy:
            self.contended.debugctl(alone.debugctl)
        else:
            self.set_debugctl(alone.debugctl)
        self.pmu_changed()
        self.sync()


def _replaced(msrs: ContendedMsrs) -> Iterator[tuple[int, Slot]]:
    """The LBR registers, with accessors that ask the policy."""
    kinds = LEGACY_KINDS if msrs.model.legacy else KINDS
    made: dict[tuple[object, object], ContendedAccessor] = {}
    for index, slot in slots(msrs.model).items():
        kind = kinds.get(slot.register.row.accessor)
        if kind is not None:
            accessor = made.setdefault((slot.read, slot.write), ContendedAccessor(
                msrs.contended, kind, msrs.view, slot.read, slot.write))
            yield index, replace(slot, read=accessor.read, write=accessor.write)


class VirtualProcessor(Processor):
    """A vCPU's processor: accesses to LBR registers that exit are emulated by the policy.

    Parameters
    ----------
    model : CpuModel
        The host's; the guest gets `guest_model` of it.
    events : Events
    policy : Policy
    lost : bool
        Records were lost before it came here.

    Attributes
    ----------
    contended : ContendedCpu
    """

    msrs: ContendedMsrs

    def __init__(self, model: CpuModel, events: Events, policy: Policy, lost: bool = False
                 ) -> None:
        def registers(model: CpuModel, pmu: PmuState) -> MsrAccess:
            msrs = ContendedMsrs(model, pmu, policy, lost)
            return MsrAccess(msrs, dict(_replaced(msrs)))

        super().__init__(guest_model(model), events, registers)
        self.contended = self.msrs.contended

    @classmethod
    def resume(
        cls, state: ProcessorState, events: Events, policy: Policy, lost: bool = False
    ) -> VirtualProcessor:
        """A vCPU of another host, in the state that `state` returned there.

        Raises
        ------
        StateError
        """
        cpu = cls(state.model, events, policy, lost)
        cpu.load(state)
        return cpu
