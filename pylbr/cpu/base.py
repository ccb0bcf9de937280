"""What a processor holds, and what follows from it; the parts of `Processor` build on this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pylbr.arch.features import CpuModel
from pylbr.arch.formats import FORMATS
from pylbr.cpu.dispatch import slots
from pylbr.cpu.facility import facility
from pylbr.cpu.pmu import CTR_FRZ, LBR_FRZ, PmuState

if TYPE_CHECKING:
    from pylbr.cpu.processor import Processor
    from pylbr.cpu.vmcs import Vmcs

__all__ = ["Base", "Events", "NO_EVENTS"]

IA32_XSS = 0xDA0
IA32_RTIT_CTL = 0x570


class Events(Protocol):
    """What the outside is told of; it may use the processor while it is told."""

    def pmi(self, cpu: Processor) -> bool | None:
        """A performance-monitoring interrupt; True stops the batch right behind the branch."""

    def pebs(self, cpu: Processor, counter: int, record: bytes) -> int | None:
        """An adaptive PEBS record; what is returned reloads the counter.

        `counter` is its bit in IA32_PERF_GLOBAL_CTRL.
        """


class _NoEvents:
    def pmi(self, cpu: Processor) -> bool | None:
        return None

    def pebs(self, cpu: Processor, counter: int, record: bytes) -> int | None:
        return None


#: Nobody listens.
NO_EVENTS = _NoEvents()


class Base:
    """State of `Processor`, whose docstring has the attributes."""

    def __init__(self, model: CpuModel, events: Events) -> None:
        self.model = model
        self.events = events
        self.lbr = facility(model)
        self.pmu = PmuState(model)
        self.siblings: tuple[Base, ...] = ()
        self.layout = FORMATS[model.legacy.format if model.legacy else 1]
        self._slots = slots(model)
        #: MSR_DEBUGCTL.LBR switches the facility.
        self._switched_by_debugctl = model.legacy is not None
        #: A freeze sets a status bit (PMU version 4 up, PerfMonV2) and no enable changes.
        self._streamlined = model.pmu.version >= 4 or model.amd is not None
        self._has_status = model.pmu.version >= 2
        self._clear()

    def _clear(self) -> None:
        """Everything but the facility as after a cold reset."""
        self.debugctl = 0
        self.xcr0 = 1
        self.values: dict[int, int] = {}
        self.vmcs: Vmcs | None = None
        self.in_smm = self.in_tsx = False
        self.smm_lbren = False
        self.smm_debugctl: int | None = None
        self.enclave, self.enclave_entry = "", 0
        self.cs_base, self.long_mode = 0, True
        self.pmu.reset()
        self.pmu_changed()
        self.sync()

    @property
    def tracing(self) -> bool:
        """Intel PT is on: IA32_RTIT_CTL.TraceEn."""
        return bool(self.values.get(IA32_RTIT_CTL, 0) & 1)

    @property
    def guest(self) -> Vmcs | None:
        """The VMCS in force, unless in SMM: that is outside of VMX (SDM vol. 3, 34.14.1)."""
        return None if self.in_smm else self.vmcs

    @property
    def xss(self) -> int:
        """IA32_XSS."""
        return self.values.get(IA32_XSS, 0)

    def set_select(self, value: int) -> None:
        """Set LBR_SELECT, for all threads that share it."""
        self.lbr.ctl = value
        for sibling in self.siblings:
            sibling.lbr.ctl = value

    def sync(self) -> None:
        """Bring the facility's enable and freeze in line with what governs them."""
        if self._switched_by_debugctl:
            self.lbr.enable = bool(self.debugctl & 1)
        self.lbr.frozen = bool(
            self.pmu.status & LBR_FRZ or self.enclave == "out"
            or (self.model.pt_excludes_lbr and self.tracing)
        )

    def pmu_changed(self) -> None:
        """What counts or logs has changed."""
        self.pmu.changed()
        if self.model.arch and self.model.arch.event_logging:
            self.lbr.event_mask = self.pmu.logging()

    def set_status(self, value: int) -> None:
        """Set IA32_PERF_GLOBAL_STATUS and what follows from it."""
        pmu = self.pmu
        changed = pmu.status ^ value
        pmu.status = value
        if changed & CTR_FRZ:
            self.pmu_changed()
        if changed & LBR_FRZ:
            self.sync()
