"""SGX enclaves as far as LBRs and counters meet them (SDM vol. 3, 43.5.2)."""

from __future__ import annotations

from pylbr.arch import choices
from pylbr.arch.bits import STATUS_ASCI
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import STOPPED_BY_ENCLAVE
from pylbr.cpu.saved.state import EnclaveState, is_number, need
from pylbr.errors import UnsupportedFeature

__all__ = ["Enclave"]


class Enclave:
    """The enclave that one processor is in.

    Attributes
    ----------
    kind : str
        "" outside, "in" inside an opt-in enclave, "out" inside an opt-out one.
    entry : int
        Address of the EENTER or ERESUME.
    """

    def __init__(self, msrs: Msrs) -> None:
        self.msrs = msrs
        self.reset()

    def reset(self) -> None:
        """Outside."""
        self.kind, self.entry = "", 0

    def copy(self, msrs: Msrs) -> Enclave:
        """The same for a copy of the registers."""
        other = object.__new__(Enclave)
        other.__dict__.update(self.__dict__)
        other.msrs = msrs
        return other

    def save(self) -> EnclaveState:
        """Kind and entry as plain data."""
        return EnclaveState(self.kind, self.entry)

    def load(self, saved: EnclaveState) -> None:
        """Take over saved state, `StateError` for values that the model cannot hold."""
        model = self.msrs.model
        need(saved.kind in ("", "in", "out"), f"enclave: {saved.kind!r} is none of '', in, out")
        need(not saved.kind or model.sgx, f"enclave: {model.name} has no SGX")
        need(is_number(saved.entry, (1 << 64) - 1), "enclave.entry: must fit in 64 bits")
        self.kind, self.entry = saved.kind, saved.entry
        self.msrs.opted_out = saved.kind == "out"
        self.msrs.pmu.stop(STOPPED_BY_ENCLAVE, saved.kind == "out")

    def enter(self, from_: int, opt_in: bool) -> None:
        """EENTER or ERESUME at `from_`."""
        msrs = self.msrs
        if not msrs.model.sgx:
            raise UnsupportedFeature(f"{msrs.model.name} has no SGX")
        if self.kind:
            raise UnsupportedFeature("EENTER within an enclave faults")
        self.kind, self.entry = "in" if opt_in else "out", from_
        if opt_in:
            return
        msrs.opted_out = True
        if choices.OPT_OUT_ENCLAVE_STOPS_COUNTERS:
            msrs.pmu.stop(STOPPED_BY_ENCLAVE)
            if msrs.pmu.facts.version >= 4:
                msrs.set_status(msrs.pmu.status | STATUS_ASCI)
            msrs.pmu_changed()
        msrs.sync()

    def leave(self, from_: int) -> int:
        """EEXIT or AEX at `from_`; the FROM that its record has, the entry's if opt-out."""
        if not self.kind:
            raise UnsupportedFeature("no enclave is entered")
        opt_out, entry = self.kind == "out", self.entry
        self.reset()
        if not opt_out:
            return from_
        self.msrs.opted_out = False
        self.msrs.pmu.stop(STOPPED_BY_ENCLAVE, False)
        self.msrs.pmu_changed()
        self.msrs.sync()
        return entry
