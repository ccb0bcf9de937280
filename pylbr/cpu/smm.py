"""System management mode as far as LBRs and counters meet it."""

from __future__ import annotations

from pylbr.arch.bits import (
    CTL_LBREN,
    DEBUGCTL_BTF,
    DEBUGCTL_BTS,
    DEBUGCTL_FREEZE_WHILE_SMM,
    DEBUGCTL_LBR,
    DEBUGCTL_TR,
)
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import STOPPED_BY_SMM
from pylbr.cpu.saved.state import SmmState, check_register, need

__all__ = ["Smm"]


class Smm:
    """SMM of one processor.

    Attributes
    ----------
    inside : bool
    lbren : bool
        LBREn as the SMI found it.
    debugctl : int or None
        IA32_DEBUGCTL as the SMI found it, if FREEZE_WHILE_SMM changed it.
    """

    def __init__(self, msrs: Msrs) -> None:
        self.msrs = msrs
        self.reset()

    def reset(self) -> None:
        """Outside of SMM."""
        self.inside, self.lbren = False, False
        self.debugctl: int | None = None

    def copy(self, msrs: Msrs) -> Smm:
        """The same for a copy of the registers."""
        other = object.__new__(Smm)
        other.__dict__.update(self.__dict__)
        other.msrs = msrs
        return other

    def save(self) -> SmmState:
        """What an SMI saved, as plain data."""
        return SmmState(self.inside, self.lbren, self.debugctl)

    def load(self, saved: SmmState) -> None:
        """Take over saved state, `StateError` for values that the model cannot hold."""
        need(saved.inside or not (saved.lbren or saved.debugctl is not None),
             "smm.lbren, smm.debugctl: held outside of SMM")
        model = self.msrs.model
        if saved.debugctl is not None:
            check_register(model, "MSR_DEBUGCTLA" if model.netburst else "IA32_DEBUGCTL",
                           saved.debugctl)
        self.inside, self.lbren, self.debugctl = saved.inside, saved.lbren, saved.debugctl
        self.msrs.pmu.stop(STOPPED_BY_SMM, saved.debugctl is not None)

    def enter(self) -> None:
        """SMI: LBREn is saved and cleared; FREEZE_WHILE_SMM stops what it stops."""
        msrs = self.msrs
        self.inside = True
        if msrs.model.arch:
            self.lbren = bool(msrs.lbr.ctl & CTL_LBREN)
            msrs.lbr.ctl &= ~CTL_LBREN
        if msrs.debugctl & DEBUGCTL_FREEZE_WHILE_SMM and msrs.model.freeze_while_smm:
            self.debugctl = msrs.debugctl
            msrs.set_debugctl(
                msrs.debugctl & ~(DEBUGCTL_LBR | DEBUGCTL_BTF | DEBUGCTL_TR | DEBUGCTL_BTS))
            msrs.pmu.stop(STOPPED_BY_SMM)
            msrs.pmu_changed()

    def leave(self) -> None:
        """RSM: what the SMI saved comes back, LBREn alone of IA32_LBR_CTL."""
        msrs = self.msrs
        self.inside = False
        if msrs.model.arch:
            msrs.lbr.ctl = msrs.lbr.ctl & ~CTL_LBREN | (CTL_LBREN if self.lbren else 0)
            self.lbren = False
        if self.debugctl is not None:
            msrs.set_debugctl(self.debugctl)
            self.debugctl = None
            msrs.pmu.stop(STOPPED_BY_SMM, False)
            msrs.pmu_changed()
