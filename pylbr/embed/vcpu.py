"""A guest's processor whose LBRs a host shares, as a policy of `pylbr.arbitration` says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pylbr.arbitration import Policy
from pylbr.arch import CpuModel
from pylbr.arch.register import MsrRegister
from pylbr.cpu import Processor, ProcessorState
from pylbr.cpu.base import Events
from pylbr.embed.contended_cpu import (
    DEPTH,
    DISABLE,
    ENABLE,
    HOST_FROM,
    READ,
    SELECT,
    WRITE,
    XSAVES,
    ContendedCpu,
)

__all__ = ["VirtualProcessor", "guest_model"]

#: Bits of an address that every format keeps, and that tell the host's branches.
_SHIFT, _TAG = 32, HOST_FROM >> 32 & 0xFFFF
_LER = -1
_LBREN = 1
_DEBUGCTL_LBR, _LBR_FRZ = 1, 1 << 58
_CONTROLS = frozenset({"lbr.ctl", "lbr.select"})
_RECORDS = frozenset({"lbr.from", "lbr.to", "lbr.info", "lbr.single"})
_LERS = frozenset({"ler.from", "ler.to", "ler.info"})
_READ = _CONTROLS | _RECORDS | _LERS | {"lbr.tos"}


def guest_model(model: CpuModel) -> CpuModel:
    """`model` as a hypervisor offers it: the largest depth is the only one (spec 7)."""
    if model.arch is None or model.arch.fixed_depth:
        return model
    return replace(model, lbr=replace(
        model.arch, depth_bitmap=1 << model.arch.max_depth // 8 - 1))


class VirtualProcessor(Processor):
    """A vCPU's processor: accesses to LBR registers that exit are emulated by the policy.

    Parameters
    ----------
    model : CpuModel
        The host's; the guest gets `guest_model` of it.
    events : Events
    policy : Policy

    Attributes
    ----------
    shared : ContendedCpu
    leaked : int
        Records of the host that the guest has read.
    """

    _shared: ContendedCpu | None = None

    def __init__(self, model: CpuModel, events: Events, policy: Policy) -> None:
        super().__init__(guest_model(model), events)
        self._view = Processor(self.model)
        self.leaked = 0
        self._shared = ContendedCpu(policy, self.lbr)

    @property
    def shared(self) -> ContendedCpu:
        assert self._shared is not None
        return self._shared

    def sync(self) -> None:
        """As `Processor.sync`, through the hypervisor."""
        if self._shared is None:
            super().sync()
            return
        if self.model.legacy and self._shared.guest_debugctl & ~self.debugctl & _DEBUGCTL_LBR:
            self._shared.stop_recording()
        self._shared.freeze(bool(self.pmu.status & _LBR_FRZ))

    # MSRs

    def _home(self, index: int) -> tuple[str, MsrRegister | None]:
        slot = self._slots.get(index)
        return ("", None) if slot is None else (slot.register.row.home, slot.register)

    def rdmsr(self, index: int, host: bool = False) -> int:
        home, _ = self._home(index)
        if home in _READ and self.shared.exits(READ):
            self._fresh_view()
            self.shared.read(self._view.lbr)
            value = self._view.rdmsr(index)
        else:
            value = super().rdmsr(index, host)
        if home in _RECORDS | _LERS:
            self.leaked += value >> _SHIFT & 0xFFFF == _TAG
        return value

    def wrmsr(self, index: int, value: int, host: bool = False) -> None:
        home, register = self._home(index)
        shared = self.shared
        if register is None or not self._intercepted(home, value):
            super().wrmsr(index, value, host)
            return
        self._fresh_view()
        if home in _RECORDS or home in _LERS:
            shared.modify(self._view.lbr, lambda: self._changed(register, value))
            return
        self._view.wrmsr(index, value)  # raises what the guest is to see
        if home == "lbr.depth":
            shared.reset()
        elif home == "lbr.tos":
            shared.tos(value)
        elif home == "debugctl":
            self.debugctl = self._view.debugctl
            shared.debugctl(self.debugctl)
        else:
            shared.control(value)

    def _intercepted(self, home: str, value: int) -> bool:
        if home == "lbr.depth":
            return self.shared.exits(DEPTH)
        if home == "lbr.ctl":
            return self.shared.exits(ENABLE if value & _LBREN else DISABLE)
        if home == "lbr.select":
            return self.shared.exits(SELECT)
        if home == "debugctl":
            return self.model.legacy is not None
        return (home in _RECORDS or home in _LERS or home == "lbr.tos") and (
            self.shared.exits(WRITE))

    def _fresh_view(self) -> None:
        self._view.debugctl, self._view.xcr0 = self.debugctl, self.xcr0
        self._view.values = self.values.copy()

    def _changed(self, register: MsrRegister, value: int) -> int:
        """Write into the view; the number of the record, counted from the newest."""
        self._view.wrmsr(register.index, value)
        if register.row.home in _LERS:
            return _LER
        if self.model.arch:
            return register.n
        return (self._view.lbr.tos - register.n) % self._view.lbr.depth

    # XSAVES

    def xsaves(self, area: bytearray | memoryview, offset: int = 0, rfbm: int = 1 << 15, *,
               address: int | None = None, xinuse: int = 0) -> None:
        if rfbm & self.xss and self.shared.exits(XSAVES):
            self._fresh_view()
            self.shared.read(self._view.lbr, True)
            self._view.xsaves(area, offset, rfbm, address=address, xinuse=xinuse)
            self._count(self._view.records())
            return
        super().xsaves(area, offset, rfbm, address=address, xinuse=xinuse)
        if rfbm & self.xss:
            self._count(self.lbr.records())

    def _count(self, records: npt.NDArray[np.void]) -> None:
        self.leaked += int(np.count_nonzero(records["from"] >> _SHIFT & 0xFFFF == _TAG))

    def xrstors(self, area: bytes | bytearray | memoryview, offset: int = 0,
                rfbm: int = 1 << 15, *, address: int | None = None) -> None:
        if rfbm & self.xss and self.shared.exits(XSAVES):
            self._fresh_view()
            self.shared.show(self._view.lbr)
            self._view.xrstors(area, offset, rfbm, address=address)
            self.shared.restore(self._view.lbr)
        else:
            super().xrstors(area, offset, rfbm, address=address)

    # Events

    def debug_exception(self, *, indirect_exit: bool = False) -> None:
        self.shared.debug_exception()
        self.debugctl &= ~(1 | 1 << 1 | 1 << 6)
        self.sync()

    def records(self) -> npt.NDArray[np.void]:
        """What the guest would be shown; nothing happens by that."""
        self.shared.show(self._view.lbr)
        return self._view.records()

    # Migration

    def state(self) -> ProcessorState:
        """What user space would read: a processor that goes on alone, or as another vCPU."""
        plain = super().copy()
        plain.lbr = self._view.lbr
        self._fresh_view()
        self.shared.show(plain.lbr)
        return plain.state()

    @classmethod
    def resume(
        cls, state: ProcessorState, events: Events, policy: Policy, lost: bool = False
    ) -> VirtualProcessor:
        """A vCPU of another host, in the state that `state` returned there.

        Raises
        ------
        StateError
        """
        cpu, plain = cls(state.model, events, policy), Processor.from_state(state)
        shared, plain.events = cpu.shared, events
        for name, value in vars(plain).items():
            if name not in ("lbr", "model"):
                setattr(cpu, name, value)
        shared.load(plain.lbr, lost)
        if cpu.model.legacy:
            shared.debugctl(cpu.debugctl)
        cpu.pmu_changed()
        cpu.sync()
        return cpu
