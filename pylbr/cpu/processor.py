"""The logical processor: its parts together, and the instructions and events that they serve."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lbrcore import BranchClass, BranchFlag, LbrState
from pylbr.arch.bits import STATUS_ARCHPEBSTHRESHOLD, STATUS_OVFBUF
from pylbr.arch.cpuid import cpuid
from pylbr.arch.features import CpuModel
from pylbr.arch.models import model as named
from pylbr.arch.vmx import ExitReason
from pylbr.cpu import xsave
from pylbr.cpu.errors import VmExit
from pylbr.cpu.events import NO_EVENTS, Events
from pylbr.cpu.listing import table_of
from pylbr.cpu.parts import Parts, Registers, own_registers
from pylbr.cpu.saved.state import ProcessorState
from pylbr.cpu.vmcs import Vmcs
from pylbr.cpu.vmx import check_msr, check_xsaves
from pylbr.errors import UnsupportedFeature

if TYPE_CHECKING:
    from pylbr.tables import Table

__all__ = ["Processor"]


class Processor:
    """One logical processor.

    Parameters
    ----------
    model : CpuModel or str
        What it offers; a string names one of ``pylbr.arch.MODELS``.
    events : Events, optional
        Receives PMIs and PEBS records.
    registers : callable, optional
        Makes the access to its registers of model and PMU; by default they are its own.

    Attributes
    ----------
    model : CpuModel
    lbr : LbrState
        The facility in the core.  Its records are for reading; control goes through WRMSR.
    parts : Parts
    access, msrs, pmu, smm, enclave, mode, vmx, recorder
        Of `parts`.

    Notes
    -----
    Every part owns its state, with `save`, `load`, `reset` and `copy`.  Used by one thread at a
    time.  Nothing here reads the clock or the host.
    """

    def __init__(self, model: CpuModel | str, events: Events = NO_EVENTS,
                 registers: Registers = own_registers) -> None:
        self.events = events
        self._assemble(Parts(named(model) if isinstance(model, str) else model, registers))

    def _assemble(self, parts: Parts) -> None:
        self.parts, self.model, self.pmu = parts, parts.model, parts.pmu
        self.access, self.msrs, self._slots = parts.access, parts.msrs, parts.access.slots
        self.smm, self.enclave = parts.smm, parts.enclave
        self.mode, self.vmx, self.recorder = parts.mode, parts.vmx, parts.recorder

    def copy(self) -> Processor:
        """An independent processor in the same state, alone on its core; a VMCS in force is
        copied too."""
        other = object.__new__(Processor)
        other.events = self.events
        other._assemble(self.parts.copy())
        return other

    def state(self) -> ProcessorState:
        """The state as frozen, plain data; nothing changes."""
        return self.parts.save()

    @classmethod
    def from_state(cls, state: ProcessorState, events: Events = NO_EVENTS,
                   registers: Registers = own_registers) -> Processor:
        """A processor in that state; errors as `load`."""
        cpu = cls(state.model, events, registers)
        cpu.load(state)
        return cpu

    def load(self, state: ProcessorState) -> None:
        """Bring this processor, fresh from reset and of the state's model, into `state`.

        Raises
        ------
        StateError
            For a value that the model cannot hold.
        """
        self.parts.load(state)

    # RDMSR and WRMSR

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
            The MSR bitmap in force requires it.
        """
        slot = self._slots.get(index)
        if host or slot is None or self.vmx.vmcs is not None:
            guest = self.guest
            if guest is not None and not host:
                check_msr(guest, index, None)
            return self.access.read(index, host)
        return slot.read(self.msrs, slot.register)

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
            The MSR bitmap in force requires it.
        """
        slot = self._slots.get(index)
        if (host or slot is None or self.vmx.vmcs is not None or not slot.guest_writes
                or value & slot.reserved):
            guest = self.guest
            if guest is not None and not host:
                check_msr(guest, index, value)
            return self.access.write(index, value, host)
        return slot.write(self.msrs, slot.register, value)

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
        self.msrs.set_xcr0(value)

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
            The XSS-exiting bitmap in force requires it.
        ValueError
            The buffer is too short.
        """
        self._before_xsaves(rfbm, restoring=False)
        self.msrs.xsaves(area, offset, rfbm, address, xinuse)

    def xrstors(self, area: bytes | bytearray | memoryview, offset: int = 0,
                rfbm: int = 1 << 15, *, address: int | None = None) -> None:
        """XRSTORS as far as LBRs go; arguments and errors as `xsaves`.

        Raises
        ------
        GeneralProtection
            A refused header or reserved bits; the state is as it was.
        """
        self._before_xsaves(rfbm, restoring=True)
        self.msrs.xrstors(area, offset, rfbm, address)

    def _before_xsaves(self, rfbm: int, restoring: bool) -> None:
        xsave.check_offered(self.model)
        guest = self.guest
        if guest is not None:
            check_xsaves(guest, rfbm & self.xss, restoring)

    # Branches

    def record(self, branches: npt.NDArray[np.void], start: int = 0,
               stop: int | None = None) -> int:
        """Retire a batch of branches: count, record, raise PMIs where they fall.

        Parameters
        ----------
        branches : array of ``lbrcore.BRANCH_DTYPE``, shape (n,), oldest first
        start, stop : int
            Which of them; `stop` is n if left out.

        Returns
        -------
        int
            Where it ended: `stop`, or less if ``events.pmi`` asked to stop; the caller continues
            with the branch of that index.

        Notes
        -----
        A counter that overflows does so at the exact branch.  That branch is recorded, then
        the LBRs freeze if IA32_DEBUGCTL asks for it, then the PMI is delivered.  An exception of a
        listener ends the batch there; a note on it reports which branches are taken.

        Raises
        ------
        TypeError, ValueError
            As ``lbrcore.LbrState.record``.
        """
        return self.recorder.record(self, branches, start, stop)

    def branch(
        self, cls: int, from_: int, to: int, *, cpl_from: int = 3, cpl_to: int = 3,
        flags: int = 0, cycles: int = 0, instructions: int = 1,
        events: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> bool:
        """Retire one branch; arguments as the fields of ``lbrcore.BRANCH_DTYPE``.

        Returns
        -------
        bool
            ``events.pmi`` asked to stop.
        """
        return self.recorder.branch(self, cls, from_, to, cpl_from, cpl_to, flags, cycles,
                                    instructions, events)

    def retire(self, instructions: int, *, cycles: int = 0, cpl: int = 3, ip: int = 0) -> bool:
        """Count instructions, and time that passes, without a branch.

        The branch that follows leaves them out.

        Parameters
        ----------
        instructions, cycles : int
            0 to 2**32 - 1.
        cpl : int
        ip : int
            Linear address of the instruction that runs next.

        Returns
        -------
        bool
            ``events.pmi`` asked to stop.
        """
        return self.recorder.retire(self, instructions, cycles, cpl, ip)

    def records(self) -> npt.NDArray[np.void]:
        """All records, newest first, as ``lbrcore.ENTRY_DTYPE``; a copy."""
        return self.msrs.records()

    def _far(self, from_: int | None, to: int | None, cpl_from: int = 0, cpl_to: int = 0) -> None:
        if from_ is not None and to is not None:
            self.branch(BranchClass.FAR_BRANCH, from_, to, cpl_from=cpl_from, cpl_to=cpl_to)

    # PMIs

    def deliver_pmi(self) -> bool:
        """Report a PMI, for the recorder."""
        return bool(self.events.pmi(self))

    def deliver_pebs(self, counter: int, record: bytes) -> int | None:
        """Report a PEBS record, for the recorder."""
        return self.events.pebs(self, counter, record)

    def raise_pmi(self) -> bool:
        """Freeze as IA32_DEBUGCTL demands, then report the PMI.  True: stop the batch."""
        return self.recorder.raise_pmi(self)

    def pebs_threshold(self) -> bool:
        """The PEBS buffer has reached its threshold: OvfBuf, or the bit of architectural PEBS,
        and a PMI."""
        if not (self.model.pmu.pebs_format or self.model.pmu.arch_pebs):
            raise UnsupportedFeature(f"{self.model.name} has no PEBS")
        self.msrs.set_status(self.pmu.status | (
            STATUS_ARCHPEBSTHRESHOLD if self.model.pmu.arch_pebs else STATUS_OVFBUF))
        return self.raise_pmi()

    # Events; all addresses are linear

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
        self.msrs.stop_recording()
        if indirect_exit:
            if guest is None:
                raise UnsupportedFeature("an indirect VM exit happens in a guest only")
            raise VmExit(ExitReason.EPT_VIOLATION)

    def smi(self) -> None:
        """Enter SMM: LBREn is saved and cleared; FREEZE_WHILE_SMM stops what it stops."""
        if self.smm.inside:
            raise UnsupportedFeature("an SMI is blocked in SMM")
        self.smm.enter()

    def rsm(self, from_: int | None = None, to: int | None = None, *, cpl_to: int = 0) -> None:
        """Leave SMM: what `smi` saved comes back, LBREn alone of IA32_LBR_CTL.

        With addresses, RSM is a far branch and recorded as one.
        """
        if not self.smm.inside:
            raise UnsupportedFeature("RSM outside of SMM is an invalid opcode")
        self.smm.leave()
        self._far(from_, to, cpl_to=cpl_to)

    def init(self, from_: int | None = None, to: int | None = None) -> None:
        """INIT: no MSR changes; with addresses it is recorded.  In a guest: `VmExit`."""
        if self.smm.inside:
            raise UnsupportedFeature("an INIT is blocked in SMM")
        if self.vmx.vmcs is not None:
            raise VmExit(ExitReason.INIT)
        self.mode.in_tsx = False
        self._far(from_, to)

    def sipi(self, from_: int | None = None, to: int | None = None) -> None:
        """SIPI: no MSR changes; with addresses it is recorded.  In a guest, which waits for it:
        `VmExit`."""
        if self.guest is not None:
            raise VmExit(ExitReason.SIPI)
        self._far(from_, to)

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
        self.parts.reset(warm=kind == "warm" and not in_c6)

    def mwait(self, deep: bool = True, *, lose: bool = True) -> None:
        """MWAIT.  In a guest with "MWAIT exiting": `VmExit`.

        Parameters
        ----------
        deep : bool
            The state is deeper than C1.
        lose : bool
            Whether the processor, which may, does lose its LBRs in this state.
        """
        guest = self.guest
        if guest is not None and guest.has("MWAIT exiting"):
            raise VmExit(ExitReason.MWAIT)
        offers = self.model.arch.deep_cstate_reset if self.model.arch else bool(self.model.legacy)
        if deep and lose and offers:
            self.msrs.lose_records()

    def tsx_begin(self) -> None:
        """XBEGIN or XACQUIRE: branches from here on have IN_TSX."""
        self.mode.begin()

    def tsx_commit(self) -> None:
        """XEND or XRELEASE."""
        self.mode.commit()

    def tsx_abort(self, from_: int, to: int, *, cpl: int = 3) -> bool:
        """Abort: one record with TSX_ABORT; earlier records stay.  True: as `branch`."""
        self.mode.abort()
        return self.branch(BranchClass.TSX_ABORT, from_, to, cpl_from=cpl, cpl_to=cpl,
                           flags=BranchFlag.TSX_ABORT, instructions=0)

    def enclave_enter(self, from_: int, to: int, *, opt_in: bool) -> None:
        """EENTER or ERESUME at `from_` into the enclave at `to` (SDM vol. 3, 43.5.2).

        Opt-in: recorded, as are the branches inside.  Opt-out: neither is.
        """
        self.enclave.enter(from_, opt_in)
        if opt_in:
            self._far(from_, to, 3, 3)

    def enclave_exit(self, from_: int, to: int) -> None:
        """EEXIT at `from_` to `to`: one record; FROM is the entry's address if opt-out."""
        self._far(self.enclave.leave(from_), to, 3, 3)

    def aex(self, from_: int, aep: int) -> None:
        """Asynchronous exit: one record to the AEP; the event's own comes after it."""
        self._far(self.enclave.leave(from_), aep, 3, 3)

    # VMX

    def vm_entry(self, vmcs: Vmcs) -> None:
        """VMLAUNCH or VMRESUME.

        The guest's IA32_LBR_CTL, IA32_DEBUGCTL and IA32_PERF_GLOBAL_CTRL are loaded as the
        entry controls ask for, then the entry's MSR list.  The records and IA32_LBR_DEPTH cross
        unchanged.  An injected event, of vector 1 too, changes no debug control; its own
        jump is for the caller to retire.

        Raises
        ------
        VmEntryFailure
            The entry fails; `vmcs` has the exit reason where the architecture writes one.
        UnsupportedFeature
            In a guest, in SMM, or without VMX; a VMX abort when an entry has failed.
        """
        if not self.model.vmx or not self.model.intel:
            raise UnsupportedFeature(f"{self.model.name} has no VMX")
        if self.smm.inside:
            raise UnsupportedFeature("SMM is outside of VMX operation")
        self.vmx.enter(vmcs)

    def vm_exit(self, reason: ExitReason, qualification: int = 0) -> Vmcs:
        """Leave the guest: save, clear and load what the exit controls ask for.

        IA32_DEBUGCTL is 0 afterwards, always.

        Returns
        -------
        Vmcs
            The VMCS that was in force, with exit reason and guest state filled in.

        Raises
        ------
        UnsupportedFeature
            Outside of a guest; a VMX abort.
        """
        if self.guest is None:
            raise UnsupportedFeature("a VM exit happens in a guest only")
        return self.vmx.leave(reason, qualification)

    @property
    def guest(self) -> Vmcs | None:
        """The VMCS in force, unless in SMM: that is outside of VMX (SDM vol. 3, 34.14.1)."""
        return None if self.smm.inside else self.vmx.vmcs

    # What callers read most

    @property
    def lbr(self) -> LbrState:
        """The facility in the core."""
        return self.msrs.lbr

    @property
    def debugctl(self) -> int:
        """IA32_DEBUGCTL as it reads."""
        return self.msrs.debugctl

    @property
    def xcr0(self) -> int:
        """XCR0."""
        return self.msrs.xcr0

    @property
    def xss(self) -> int:
        """IA32_XSS."""
        return self.msrs.xss

    # As text

    def __repr__(self) -> str:
        head, table = self._listed()
        return "\n".join([head, *([str(table)] if table.rows else []), repr(self.lbr)])

    def _repr_html_(self) -> str:
        head, table = self._listed()
        registers = table._repr_html_() if table.rows else ""
        return f"<div><p>{escape(head)}</p>\n{registers}\n{self.lbr._repr_html_()}</div>"

    def _listed(self) -> tuple[str, Table]:
        table = table_of(self.model, lambda index: self.rdmsr(index, host=True))
        where = ", in SMM" if self.smm.inside else ", in a guest" if self.guest else ""
        count = len(table.rows)
        return (f"Processor: {self.model.name}{where}; {count or 'no'} "
                f"register{'s' * (count != 1)} not at reset", table)
