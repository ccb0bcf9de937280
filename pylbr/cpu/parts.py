"""The parts of a processor together: made, copied, saved, loaded and reset in their order."""

from __future__ import annotations

from collections.abc import Callable

from pylbr.arch.features import CpuModel
from pylbr.cpu.enclave import Enclave
from pylbr.cpu.msr.access import MsrAccess
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import PmuState
from pylbr.cpu.recording import Mode, Recorder
from pylbr.cpu.saved.state import ProcessorState
from pylbr.cpu.smm import Smm
from pylbr.cpu.vmx import Vmx

__all__ = ["Parts", "Registers", "own_registers"]

#: Makes the registers of a model with a PMU, and how they are accessed.
Registers = Callable[[CpuModel, PmuState], MsrAccess]


def own_registers(model: CpuModel, pmu: PmuState) -> MsrAccess:
    """Registers of a processor of its own."""
    return MsrAccess(Msrs(model, pmu))


class Parts:
    """The parts of one `Processor`, each of which owns its state.

    Parameters
    ----------
    model : CpuModel
    registers : Registers

    Attributes
    ----------
    model : CpuModel
    pmu : PmuState
    access : MsrAccess
        The registers by number, past every VM exit.
    msrs : Msrs
        Values of the registers, IA32_DEBUGCTL and XCR0.
    smm : Smm
    enclave : Enclave
    mode : Mode
        Transaction, base of CS, 64-bit mode: what records contain of a branch.
    vmx : Vmx
    recorder : Recorder
        Has no state of its own.
    """

    def __init__(self, model: CpuModel, registers: Registers) -> None:
        self.model, self.pmu = model, PmuState(model)
        self.access = access = registers(model, self.pmu)
        self.msrs = msrs = access.msrs
        self.smm, self.enclave = Smm(msrs), Enclave(msrs)
        self.mode, self.vmx = Mode(model), Vmx(access)
        self.recorder = Recorder(msrs, self.mode)

    def copy(self) -> Parts:
        """Independent parts in the same state."""
        other = object.__new__(Parts)
        other.model, other.pmu = self.model, self.pmu.copy()
        other.msrs = msrs = self.msrs.copy(other.pmu)
        other.access = self.access.copy(msrs)
        other.smm, other.enclave = self.smm.copy(msrs), self.enclave.copy(msrs)
        other.mode, other.vmx = self.mode.copy(), self.vmx.copy(other.access)
        other.recorder = self.recorder.copy(msrs, other.mode)
        return other

    def save(self) -> ProcessorState:
        """Their states together, as plain data."""
        return ProcessorState(
            self.model, self.msrs.save(), self.pmu.save(), self.smm.save(), self.enclave.save(),
            self.mode.save(), self.vmx.save())

    def load(self, state: ProcessorState) -> None:
        """Take over saved state, fresh from reset; `StateError` for values that the model cannot
        hold."""
        self.access.load(state.msrs.values)
        self.pmu.load(state.pmu)
        self.smm.load(state.smm)
        self.enclave.load(state.enclave)
        self.mode.load(state.mode)
        self.msrs.load(state.msrs)
        self.vmx.load(state.vmcs)

    def reset(self, warm: bool) -> None:
        """RESET; `warm`: the LBR MSRs stay, but LBREn."""
        for part in (self.smm, self.enclave, self.mode, self.vmx, self.pmu):
            part.reset()
        self.msrs.reset(warm)
