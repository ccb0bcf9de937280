"""The values of the MSRs, and the derived state that must stay in step with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lbrcore import Fault, LbrState
from lbrcore.internal_state import internal_state, set_internal_state
from pylbr.arch import choices
from pylbr.arch.bits import (
    CTL_LBREN,
    DEBUGCTL_BTF,
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    DEBUGCTL_LBR,
    DEBUGCTL_TR,
    DEBUGCTLA_BTF,
    DEBUGCTLA_LBR,
    DEBUGCTLA_TR,
    IA32_RTIT_CTL,
    IA32_XSS,
    RTIT_CTL_TRACEEN,
    STATUS_CTR_FRZ,
    STATUS_LBR_FRZ,
)
from pylbr.arch.features import CpuModel
from pylbr.arch.fields import ALL_ONES
from pylbr.arch.formats import FORMATS
from pylbr.arch.registers import registers
from pylbr.cpu import xsave
from pylbr.cpu.facility import facility
from pylbr.cpu.hardware import Facility
from pylbr.cpu.pmu import PmuState
from pylbr.cpu.saved.state import LbrSnapshot, MsrState, check_register, need
from pylbr.errors import GeneralProtection, StateError

__all__ = ["Msrs", "save_lbr"]


def save_lbr(model: CpuModel, lbr: LbrState) -> LbrSnapshot:
    """The facility of `model` as plain data; nothing changes."""
    cycles, events, xinuse = internal_state(lbr)
    return LbrSnapshot(
        lbr.ctl, lbr.depth, 0 if model.arch else lbr.tos, bool(model.amd) and lbr.enable,
        tuple(lbr.read_entry(i) for i in range(lbr.depth)), lbr.ler, cycles, events, xinuse,
    )


class Msrs:
    """Values of the MSRs; those of the PMU are in `pmu`.

    Parameters
    ----------
    model : CpuModel
    pmu : PmuState
    hardware : Facility, optional
        The compiled facility with IA32_DEBUGCTL; by default a fresh one.

    Attributes
    ----------
    lbr : LbrState
        The facility in the core.  Its records are for reading; control goes through WRMSR.
    layout : LbrFormat
        Legacy flavour: how FROM, TO and INFO registers hold a record.
    values : dict of int to int
        Registers that nothing else holds, by MSR number; absent: the reset value.
    xcr0 : int
    siblings : tuple of Msrs
        Of other threads of a `Core` that share LBR_SELECT with this one.
    opted_out : bool
        In an opt-out enclave, where nothing is recorded.
    """

    def __init__(self, model: CpuModel, pmu: PmuState, hardware: Facility | None = None) -> None:
        self.model, self.pmu = model, pmu
        self.hardware = hardware or Facility(facility(model), model.legacy is not None)
        self.lbr = self.hardware.lbr
        self.layout = FORMATS[model.legacy.format if model.legacy else 1]
        self.siblings: tuple[Msrs, ...] = ()
        self.values: dict[int, int] = {}
        self.xcr0, self.opted_out = 1, False
        self.pmu_changed()
        self.sync()

    def reset(self, survives: bool = False) -> None:
        """Values after RESET; `survives`: a warm one, which keeps the LBR MSRs but LBREn.

        A LBR_SELECT that threads share gets its new value in all of them.
        """
        if not survives or (self.model.amd and not choices.AMD_SURVIVES_WARM_RESET):
            self.lbr.reset()
        elif self.model.arch:
            self.lbr.ctl &= ~CTL_LBREN
        elif not choices.LEGACY_SELECT_SURVIVES_WARM_RESET:
            self.lbr.ctl = 0
        if self.siblings:
            self.set_select(self.lbr.ctl)
        self.values.clear()
        self.xcr0, self.opted_out = 1, False
        self.set_debugctl(0)
        self.pmu_changed()
        self.sync()

    def copy(self, pmu: PmuState) -> Msrs:
        """Independent values, with `pmu`, alone on their core."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.pmu, other.siblings, other.values = pmu, (), self.values.copy()
        other.hardware = self.hardware.copy()
        other.lbr = other.hardware.lbr
        return other

    # What follows from values

    @property
    def debugctl(self) -> int:
        """IA32_DEBUGCTL as it reads."""
        return self.hardware.debugctl

    @property
    def tracing(self) -> bool:
        """Intel PT is on: IA32_RTIT_CTL.TraceEn."""
        return bool(self.values.get(IA32_RTIT_CTL, 0) & RTIT_CTL_TRACEEN)

    @property
    def xss(self) -> int:
        """IA32_XSS."""
        return self.values.get(IA32_XSS, 0)

    def set_debugctl(self, value: int) -> None:
        """Set IA32_DEBUGCTL and what follows from it."""
        self.hardware.set_debugctl(value)

    def set_select(self, value: int) -> None:
        """Set LBR_SELECT, for all threads that share it."""
        self.lbr.ctl = value
        for sibling in self.siblings:
            sibling.lbr.ctl = value

    def sync(self) -> None:
        """Bring the facility's freeze in line with what governs it."""
        self.hardware.set_frozen(bool(
            self.pmu.status & STATUS_LBR_FRZ or self.opted_out
            or (self.model.pt_excludes_lbr and self.tracing)))

    def pmu_changed(self) -> None:
        """What counts or logs has changed."""
        self.pmu.changed()
        if self.model.arch and self.model.arch.event_logging:
            self.lbr.event_mask = self.pmu.logging()

    def set_status(self, value: int) -> None:
        """Set IA32_PERF_GLOBAL_STATUS and what follows from it."""
        changed = self.pmu.status ^ value
        self.pmu.status = value
        if changed & STATUS_CTR_FRZ:
            self.pmu_changed()
        if changed & STATUS_LBR_FRZ:
            self.sync()

    def stop_recording(self) -> None:
        """What the delivery of a #DB clears, in IA32_LBR_CTL and IA32_DEBUGCTL."""
        if self.model.arch:
            self.lbr.ctl &= ~CTL_LBREN
        cleared = (DEBUGCTLA_LBR | DEBUGCTLA_BTF | DEBUGCTLA_TR if self.model.netburst
                   else DEBUGCTL_LBR | DEBUGCTL_BTF | DEBUGCTL_TR)
        self.set_debugctl(self.debugctl & ~cleared)
        if self.model.amd and choices.AMD_DB_CLEARS_LBRV2EN:
            self.lbr.enable = False

    def freeze(self, streamlined: bool) -> bool:
        """A PMI, as IA32_DEBUGCTL asks; True: LBR_FRZ is to be set.

        `streamlined`: a freeze sets LBR_FRZ (PMU version 4 up) and changes no enable.
        """
        if (not streamlined and self.model.arch and choices.FREEZE_BELOW_V4_CLEARS_LBREN
                and self.debugctl & DEBUGCTL_FREEZE_LBRS_ON_PMI):
            self.lbr.ctl &= ~CTL_LBREN
        return self.hardware.freeze(streamlined)

    def lose_records(self) -> None:
        """What a deep C-state loses."""
        self.lbr.clear()
        self.lbr.ler = (0, 0, 0)
        _, logged, xinuse = internal_state(self.lbr)
        set_internal_state(self.lbr, None, logged, xinuse)
        if self.model.legacy:
            self.lbr.tos = 0

    def set_xcr0(self, value: int) -> None:
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

    # Records

    def shown(self) -> LbrState:
        """The facility as software sees it; nothing changes."""
        return self.lbr

    def records(self) -> npt.NDArray[np.void]:
        """All records, newest first, as ``lbrcore.ENTRY_DTYPE``; a copy."""
        return self.shown().records()

    def xsaves(self, area: bytearray | memoryview, offset: int, rfbm: int, address: int | None,
               xinuse: int) -> None:
        """XSAVES; see `Processor.xsaves`."""
        xsave.xsaves(self.model, self.lbr, area, offset, rfbm & (self.xcr0 | self.xss), address,
                     xinuse)

    def xrstors(self, area: bytes | bytearray | memoryview, offset: int, rfbm: int,
                address: int | None) -> None:
        """XRSTORS; see `Processor.xrstors`."""
        enabled = self.xcr0 | self.xss
        xsave.xrstors(self.model, self.lbr, area, offset, rfbm & enabled, address, enabled)

    # Saved state

    def save(self) -> MsrState:
        """The values as plain data."""
        reset = registers(self.model)
        return MsrState(
            save_lbr(self.model, self.shown()),
            tuple(sorted((i, v) for i, v in self.values.items() if v != reset[i].reset)),
            self.debugctl, self.xcr0)

    def load(self, saved: MsrState) -> None:
        """Take over saved values; `pmu` and `opted_out` are those of the state already.

        Raises
        ------
        StateError
            For a value that the model cannot hold.
        """
        self._check_debugctl(saved.debugctl)
        try:
            if saved.xcr0 != 1:
                self.set_xcr0(saved.xcr0)
        except GeneralProtection as error:
            raise StateError(f"xcr0: {error}") from None
        self.set_debugctl(saved.debugctl)
        self.load_lbr(saved.lbr)

    def _check_debugctl(self, value: int) -> None:
        netburst = self.model.netburst
        check_register(self.model, "MSR_DEBUGCTLA" if netburst else "IA32_DEBUGCTL", value)
        need(not (self.model.arch and value & 1), "debugctl: bit 0 always reads 0")

    def load_lbr(self, saved: LbrSnapshot) -> None:
        """Take over a saved facility."""
        lbr, model = self.lbr, self.model
        try:
            if model.arch:
                lbr.depth = saved.depth
            need(saved.depth == lbr.depth, f"depth: {saved.depth}, the model's is {lbr.depth}")
            need(len(saved.entries) == lbr.depth,
                 f"entries: {len(saved.entries)} records at depth {lbr.depth}")
            lbr.ctl = saved.ctl
            if model.arch:
                need(saved.tos == 0 and not saved.enable, "tos, enable: not architectural")
            else:
                lbr.tos = saved.tos
            if model.amd:
                lbr.enable = saved.enable
            for i, entry in enumerate(saved.entries):
                lbr.write_entry(i, *entry)
            lbr.ler = saved.ler
            self.sync()
            self.pmu_changed()
            set_internal_state(lbr, saved.cycles, saved.events, saved.xinuse)
        except (Fault, OverflowError, TypeError, ValueError) as error:
            raise StateError(f"LBR state: {error}") from None
