"""Events beside plain branches: #DB, SMM, resets, C-states, transactions, enclaves."""

from __future__ import annotations

from lbrcore import BranchClass, BranchFlag
from lbrcore.hidden import hidden, set_hidden
from pylbr.arch import choices
from pylbr.arch.vmx import ExitReason
from pylbr.cpu.errors import VmExit
from pylbr.cpu.pmu import ASCI
from pylbr.cpu.recording import Recording
from pylbr.errors import UnsupportedFeature

__all__ = ["EventPath"]

LBREN = 1
DEBUGCTL_LBR, DEBUGCTL_BTF, DEBUGCTL_TR, DEBUGCTL_BTS = 1 << 0, 1 << 1, 1 << 6, 1 << 7
DEBUGCTL_FREEZE_SMM = 1 << 14


class EventPath(Recording):
    """The event path of `Processor`.  All addresses are linear."""

    # Debug exceptions

    def debug_exception(self, *, indirect_exit: bool = False) -> None:
        """Deliver a #DB: recording is switched off before the handler runs; no record.

        Parameters
        ----------
        indirect_exit : bool
            The delivery starts and then ends in a VM exit (SDM vol. 3, 27.1).

        Raises
        ------
        VmExit
            In a guest: directly, with nothing changed, if the exception bitmap has bit 1;
            indirectly, after the change, if `indirect_exit`.
        """
        guest = self.guest
        if guest is not None and guest.exception_bitmap & 2:
            raise VmExit(ExitReason.EXCEPTION_OR_NMI)
        if self.model.arch:
            self.lbr.ctl &= ~LBREN
        if self.model.netburst:
            self.debugctl &= ~(DEBUGCTL_LBR | DEBUGCTL_BTF | 1 << 2)
        else:
            self.debugctl &= ~(DEBUGCTL_LBR | DEBUGCTL_BTF | DEBUGCTL_TR)
        if self.model.amd and choices.AMD_DB_CLEARS_LBRV2EN:
            self.lbr.enable = False
        self.sync()
        if indirect_exit:
            if guest is None:
                raise UnsupportedFeature("an indirect VM exit happens in a guest only")
            raise VmExit(ExitReason.EPT_VIOLATION)

    # System management

    def smi(self) -> None:
        """Enter SMM: LBREn is saved and cleared; FREEZE_WHILE_SMM stops what it stops."""
        if self.in_smm:
            raise UnsupportedFeature("an SMI is blocked in SMM")
        self.in_smm = True
        if self.model.arch:
            self.smm_lbren = bool(self.lbr.ctl & LBREN)
            self.lbr.ctl &= ~LBREN
        if self.debugctl & DEBUGCTL_FREEZE_SMM and self.model.freeze_while_smm:
            self.smm_debugctl = self.debugctl
            self.debugctl &= ~(DEBUGCTL_LBR | DEBUGCTL_BTF | DEBUGCTL_TR | DEBUGCTL_BTS)
            self.pmu.stopped = True
            self.pmu_changed()
        self.sync()

    def rsm(self, from_: int | None = None, to: int | None = None, *,
            cpl_to: int = 0) -> None:
        """Leave SMM: what `smi` saved comes back, LBREn alone of IA32_LBR_CTL.

        With addresses, RSM is a far branch and recorded as one.
        """
        if not self.in_smm:
            raise UnsupportedFeature("RSM outside of SMM is an invalid opcode")
        self.in_smm = False
        if self.model.arch:
            self.lbr.ctl = self.lbr.ctl & ~LBREN | self.smm_lbren
            self.smm_lbren = False
        if self.smm_debugctl is not None:
            self.debugctl, self.smm_debugctl = self.smm_debugctl, None
            self.pmu.stopped = self.enclave == "out"
            self.pmu_changed()
        self.sync()
        self._far(from_, to, cpl_from=0, cpl_to=cpl_to)

    # Resets

    def init(self, from_: int | None = None, to: int | None = None) -> None:
        """INIT: no MSR changes; with addresses it is recorded.

        Raises
        ------
        VmExit
            In a guest.
        """
        if self.in_smm:
            raise UnsupportedFeature("an INIT is blocked in SMM")
        if self.vmcs is not None:
            raise VmExit(ExitReason.INIT)
        self.in_tsx = False
        self._far(from_, to, cpl_from=0, cpl_to=0)

    def sipi(self, from_: int | None = None, to: int | None = None) -> None:
        """SIPI: no MSR changes; with addresses it is recorded.

        Raises
        ------
        VmExit
            In a guest, which waits for it.
        """
        if self.guest is not None:
            raise VmExit(ExitReason.SIPI)
        self._far(from_, to, cpl_from=0, cpl_to=0)

    def reset(self, kind: str = "cold", *, in_c6: bool = False) -> None:
        """RESET.

        Parameters
        ----------
        kind : {"cold", "warm"}
            A warm reset keeps the LBR MSRs, the depth included, but LBREn.
        in_c6 : bool
            A warm reset out of C6 is as a cold one for the LBRs.

        Notes
        -----
        A LBR_SELECT that threads share goes to its reset value for all of them.
        """
        if kind not in ("cold", "warm"):
            raise ValueError(f"kind: must be 'cold' or 'warm', not {kind!r}")
        survives = kind == "warm" and not in_c6
        if not survives or (self.model.amd and not choices.AMD_SURVIVES_WARM_RESET):
            self.lbr.reset()
        elif self.model.arch:
            self.lbr.ctl &= ~LBREN
        elif not choices.LEGACY_SELECT_SURVIVES_WARM_RESET:
            self.lbr.ctl = 0
        if self.siblings:
            self.set_select(self.lbr.ctl)
        self._clear()

    def mwait(self, deep: bool = True, *, lose: bool = True) -> None:
        """MWAIT.

        Parameters
        ----------
        deep : bool
            The state is deeper than C1.
        lose : bool
            Whether the processor, which may, does lose its LBRs in this state.

        Raises
        ------
        VmExit
            In a guest with "MWAIT exiting".
        """
        guest = self.guest
        if guest is not None and guest.has("MWAIT exiting"):
            raise VmExit(ExitReason.MWAIT)
        offers = self.model.arch.deep_cstate_reset if self.model.arch else bool(self.model.legacy)
        if not (deep and lose and offers):
            return
        self.lbr.clear()
        self.lbr.ler = (0, 0, 0)
        _, logged, xinuse = hidden(self.lbr)
        set_hidden(self.lbr, None, logged, xinuse)
        if self.model.legacy:
            self.lbr.tos = 0

    # Transactions

    def tsx_begin(self) -> None:
        """XBEGIN or XACQUIRE: branches from here on have IN_TSX."""
        self._needs_tsx()
        self.in_tsx = True

    def tsx_commit(self) -> None:
        """XEND or XRELEASE."""
        self._needs_tsx()
        self.in_tsx = False

    def tsx_abort(self, from_: int, to: int, *, cpl: int = 3) -> bool:
        """Abort: one record with TSX_ABORT; earlier records stay.  True: as `branch`."""
        self._needs_tsx()
        if not self.in_tsx:
            raise UnsupportedFeature("no transaction is open")
        self.in_tsx = False
        return self.branch(BranchClass.TSX_ABORT, from_, to, cpl_from=cpl, cpl_to=cpl,
                           flags=BranchFlag.TSX_ABORT, instructions=0)

    def _needs_tsx(self) -> None:
        if not self.model.tsx:
            raise UnsupportedFeature(f"{self.model.name} has no transactions")

    # Enclaves

    def enclave_enter(self, from_: int, to: int, *, opt_in: bool) -> None:
        """EENTER or ERESUME at `from_` into the enclave at `to` (SDM vol. 3, 43.5.2).

        Opt-in: recorded, as are the branches inside.  Opt-out: neither is.
        """
        if not self.model.sgx:
            raise UnsupportedFeature(f"{self.model.name} has no SGX")
        if self.enclave:
            raise UnsupportedFeature("EENTER within an enclave faults")
        if opt_in:
            self.enclave, self.enclave_entry = "in", from_
            self._far(from_, to, cpl_from=3, cpl_to=3)
            return
        self.enclave, self.enclave_entry = "out", from_
        if choices.OPT_OUT_ENCLAVE_STOPS_COUNTERS:
            self.pmu.stopped = True
            if self.pmu.facts.version >= 4:
                self.set_status(self.pmu.status | ASCI)
            self.pmu_changed()
        self.sync()

    def enclave_exit(self, from_: int, to: int) -> None:
        """EEXIT at `from_` to `to`: one record; FROM is the entry's address if opt-out."""
        self._far(self._leave_enclave(from_), to, cpl_from=3, cpl_to=3)

    def aex(self, from_: int, aep: int) -> None:
        """Asynchronous exit: one record to the AEP; the event's own comes behind it."""
        self._far(self._leave_enclave(from_), aep, cpl_from=3, cpl_to=3)

    def _leave_enclave(self, from_: int) -> int:
        """Leave; the FROM that the record has."""
        if not self.enclave:
            raise UnsupportedFeature("no enclave is entered")
        opt_out = self.enclave == "out"
        entry = self.enclave_entry
        self.enclave, self.enclave_entry = "", 0
        if opt_out:
            self.pmu.stopped = self.smm_debugctl is not None
            self.pmu_changed()
            self.sync()
        return entry if opt_out else from_

    # Helpers

    def _far(self, from_: int | None, to: int | None, *, cpl_from: int,
             cpl_to: int) -> None:
        if from_ is not None and to is not None:
            self.branch(BranchClass.FAR_BRANCH, from_, to, cpl_from=cpl_from, cpl_to=cpl_to)

