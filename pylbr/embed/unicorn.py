"""Architectural LBRs for a Unicorn engine.

    link = attach(uc, Processor("sapphire-rapids"))
    uc.emu_start(...)
    link.records()

Branches go from machine code to the facility; Python is entered once a block, and for the
instructions that reach the facility's registers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from unicorn import (
    UC_HOOK_BLOCK,
    UC_HOOK_CODE,
    UC_HOOK_EDGE_GENERATED,
    UC_HOOK_INSN,
    UC_HOOK_INSN_INVALID,
    UC_HOOK_INTR,
    Uc,
)
from unicorn import x86_const as reg

from lbrcore import BranchClass
from pylbr.arch.branches import br_type_name
from pylbr.cpu import Processor
from pylbr.embed import instructions
from pylbr.embed.engine import Engine, GuestFault
from pylbr.embed.host_access import HostAccess, own
from pylbr.embed.listing import listing
from pylbr.errors import GeneralProtection
from pylbr.x86.blocks import BlockRecorder
from pylbr.x86.classify import classify
from pylbr.x86.facts import BlockFacts, decode_block

__all__ = ["Link", "attach"]

DEBUG, UNDEFINED, PROTECTION = 1, 6, 13
_TF, _DR6_BS = 1 << 8, 1 << 14
_LOG = 1 << 12
_REAL_MODE_END = 0x110000
#: Instructions that the engine executes by itself in ring 0.
_PRIVILEGED = frozenset({"rdmsr", "wrmsr", "xsetbv"})
_MSR_OPCODES = {b"\x0f\x30": True, b"\x0f\x32": False}
_RDPMC = b"\x0f\x33"
_XSETBV = b"\x0f\x01\xd1"
_PREFIXES = bytes((0x66, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65, *range(0x40, 0x50)))
#: Serves an MSR that neither processor nor engine has: (index, value or None for a read).
OtherMsr = Callable[[int, int | None], int | None]
#: Delivers an exception: (vector, error code, CR2, raised by INT n).
Deliver = Callable[[int, int | None, int | None, bool], None]


#: The same code is asked for again after each change of the page tables.
_decoded = lru_cache(maxsize=1 << 14)(decode_block)


def attach(
    uc: Uc, processor: Processor, *, deliver: Deliver | None = None,
    other_msr: OtherMsr | None = None,
    trace: Callable[[npt.NDArray[np.void]], object] | None = None,
) -> Link:
    """Give an engine the LBR facility of `processor`.

    Parameters
    ----------
    uc : Uc
        x86, 64 or 32 bit.
    processor : Processor
        Serves the MSRs that it has, CPUID, RDPMC, XSAVES and XRSTORS.
    deliver : callable, optional
        Delivers exceptions to the guest, RIP being where its handler returns to.  Without it,
        those of the guest's own are left to UC_HOOK_INTR hooks of yours, and those of the
        instructions served here (#GP of a refused WRMSR) stop the emulation with
        `GuestFault`.  `pylbr.embed.idt.deliver` goes through a 64-bit IDT.
    other_msr : callable, optional
        Serves MSRs that neither `processor` nor the engine has; raises `GeneralProtection`
        for those that it has not either.
    trace : callable, optional
        Takes all branches, in arrays of BRANCH_DTYPE, whatever the facility filters.

    Returns
    -------
    Link
        Keep it, or not: the engine's hooks keep it alive.

    Raises
    ------
    UnsupportedFeature
        A build of Unicorn that does not show what is needed.

    Notes
    -----
    Call `Link.settle` when the emulation has stopped, before you start it elsewhere.  Of an
    exception or system call that your hooks serve by themselves, so that the guest continues
    at the same or next instruction, nothing is recorded.
    """
    return Link(uc, processor, deliver, other_msr, trace)


class Link:
    """An engine and the processor whose LBRs it has.

    Attributes
    ----------
    processor : Processor
    engine : Engine
    recorder : BlockRecorder
    boundary : callable or None
        ``boundary(address)`` is called where a limit or PMI is due, before the block at
        `address` runs; True if that block is not to run now.
    deadline : int or None
        Call `boundary` when so many instructions were retired in all.
    own_msrs : set of int
        MSRs that `other_msr` serves although the engine has them.
    symbols : dict of str to int
        Addresses of symbols, for ``print(link)``.
    surroundings : callable
        ``surroundings(leaf, subleaf, out)`` returns what CPUID shows in EAX to EDX where the
        processor alone would show `out`.
    """

    def __init__(
        self, uc: Uc, processor: Processor, deliver: Deliver | None, other_msr: OtherMsr | None,
        trace: Callable[[npt.NDArray[np.void]], object] | None,
    ) -> None:
        self.processor, self.engine = processor, Engine(uc)
        self._deliver, self._other_msr, self._trace = deliver, other_msr, trace
        self._asked: int | None = None
        self.own_msrs: set[int] = set()
        self.surroundings: Callable[[int, int, list[int]], list[int]] = (
            lambda leaf, subleaf, out: out)
        self.boundary: Callable[[int], bool] | None = None
        self.deadline: int | None = None
        self.symbols: dict[str, int] = {}
        self.inside = False
        self._uc, self._served = uc, set[int]()
        self._error: BaseException | None = None
        self.recorder = BlockRecorder(
            processor.lbr, self._classify, attention=self._attend, drain=self._drained,
            failed=self._failed, engine=self.engine.handle, read=self.engine.register_read,
            registers=(reg.UC_X86_REG_CS, reg.UC_X86_REG_EFLAGS, reg.UC_X86_REG_RCX), log=_LOG,
            code=self.engine.code,
        )
        self.recorder.cpl = self.engine.internal_state().cpl
        enter, translated, last = self.recorder.hooks
        self._code = [self.engine.hook(UC_HOOK_BLOCK, enter, last),
                      self.engine.hook(UC_HOOK_EDGE_GENERATED, translated, last)]
        self._python = [
            uc.hook_add(UC_HOOK_INTR, self._interrupt),
            uc.hook_add(UC_HOOK_INSN_INVALID, self._invalid),
            uc.hook_add(UC_HOOK_INSN, self._cpuid, None, 1, 0, reg.UC_X86_INS_CPUID),
        ]
        # What ran before was translated without the hooks.
        uc.ctl_flush_tb()  # type: ignore[attr-defined]  # the API for Python 2 lacks it
        self.arm()
        self._host = HostAccess(self)

    def detach(self) -> None:
        """Take all hooks away; the processor keeps what it has."""
        self.settle()
        for handle in self._code:
            self.engine.unhook(handle)
        for handle in self._python:
            self._uc.hook_del(handle)
        self._code, self._python = [], []
        self._host.remove()

    # Between the engine and the processor

    @own
    def settle(self) -> None:
        """Take in what was executed up to where the emulation stopped.

        Raises
        ------
        Exception
            What was raised inside a hook, and stopped the emulation.
        """
        self.recorder.settle(self._uc.reg_read(reg.UC_X86_REG_RIP))
        self.sync()
        self.arm()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def before_access(self) -> None:
        """The host is about to use the processor: take in what was executed."""
        block, at = self.recorder.block, self._uc.reg_read(reg.UC_X86_REG_RIP)
        if block is None or not block[0] <= at < block[1]:
            self.recorder.settle(at)  # the engine has left the block
        self.sync()

    def after_access(self) -> None:
        """The host has used the processor: record and count as its registers now require."""
        self.arm()

    def __str__(self) -> str:
        """The records, newest first: addresses, symbols, class, cycles."""
        return listing(self.records(), self._class_of, self.symbols)

    def _class_of(self, source: int, info: int) -> str:
        arch = self.processor.model.arch
        if arch is not None and arch.branch_type:
            return br_type_name(info >> 56 & 15)
        found = classify(self._fetch(source), source, self.engine.internal_state().bits)
        return (found.branch.name if found is not None and found.branch is not None
                else "an event, or other code by now")

    def records(self) -> npt.NDArray[np.void]:
        """The records, newest first, as ``lbrcore.ENTRY_DTYPE``; of all that was executed."""
        self.settle()
        return self.processor.records()

    @own
    def sync(self) -> None:
        """Bring the processor's counters and records up to now."""
        self.recorder.drain()
        if self.recorder.direct:
            self._pass()
        elif count := self.recorder.take_instructions():
            self.processor.retire(count, cycles=count, cpl=self.recorder.cpl)

    def _pass(self) -> None:
        """Let the instructions since the last branch pass for the LBRs, uncounted."""
        if self.processor.lbr is not None and (count := self.recorder.take_instructions()):
            self.processor.lbr.record_one(0, 0, BranchClass.NOT_TAKEN, cycles=count)

    def arm(self) -> None:
        """Record as the processor's registers now require, and stop where a counter overflows."""
        armed = self.processor.pmu.armed()
        self.recorder.direct = not armed.counters and not armed.logging
        self.recorder.logging = self._trace is not None or not self.recorder.direct
        branches: list[int] = []
        retired: list[int] = []
        if self.deadline is not None:
            retired.append(max(self.deadline - self.recorder.instructions, 0))
        for limit, (_, _, weight) in zip(
                self.processor.pmu.limits(armed), armed.selectors, strict=True):
            (retired if weight else branches).append(limit)
        self.recorder.limit(min(retired, default=None), min(branches, default=None))
        if self._asked is not None:
            self.recorder.attend(self._asked)

    def ask(self, flags: int = 0) -> None:
        """Call `boundary` at the next block, or the first at which RFLAGS has one of `flags`."""
        if self._asked is not None:  # what was asked for stays
            flags = flags | self._asked if flags and self._asked else 0
        self._asked = flags
        self.recorder.attend(flags)

    @own
    def _drained(self, branches: npt.NDArray[np.void]) -> None:
        if not self.recorder.direct:
            self.processor.record(branches)
        if self._trace is not None and len(branches):
            self._trace(branches)

    @own
    def _attend(self, address: int) -> bool:
        self._asked = None
        self.sync()
        held = self.boundary is not None and self.boundary(address)
        self.arm()
        return held

    def _failed(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._uc.emu_stop()

    # Blocks

    def _classify(self, address: int, size: int) -> BlockFacts | None:
        bits = self.engine.internal_state().bits
        block = _decoded(self.engine.read(address, size), address, bits)
        fresh = [start for start, _, name in block.mnemonics
                 if name in _PRIVILEGED and start not in self._served]
        if not fresh:
            return block.facts
        # In ring 0 the engine executes these by itself, hooks are compiled into the code, and
        # the code exists by now: translate it again and enter it again.
        for start in fresh:
            self._served.add(start)
            self._python.append(self._uc.hook_add(
                UC_HOOK_CODE, self._privileged, None, start, start))
        self._uc.ctl_remove_cache(address, address + size)
        self._continue_at(address)
        return None

    def _continue_at(self, address: int) -> None:
        """Set RIP to a linear address; in real mode RIP is relative to CS."""
        if address < _REAL_MODE_END and self.engine.internal_state().bits == 16:
            address -= self._uc.reg_read(reg.UC_X86_REG_CS) << 4
        self._uc.reg_write(reg.UC_X86_REG_RIP, address)

    # Instructions

    @own
    def _privileged(self, uc: Uc, address: int, size: int, data: Any) -> None:
        """One of these is about to be executed; in ring 3 the engine faults by itself."""
        if self.engine.internal_state().cpl:
            return
        code = self.engine.read(address, size).lstrip(_PREFIXES)
        if code[:2] in _MSR_OPCODES:
            self._msr(uc, address, size, _MSR_OPCODES[code[:2]])
        elif code[:3] == _XSETBV:
            try:
                instructions.xsetbv(self.engine, self.processor)
            except GuestFault as fault:
                self.recorder.emulated(address)
                self._raise(fault, address, None)

    def _msr(self, uc: Uc, address: int, size: int, writes: bool) -> None:
        index = uc.reg_read(reg.UC_X86_REG_RCX) & 0xFFFFFFFF
        if instructions.native_msr(index) and index not in self.own_msrs:
            return
        self.recorder.emulated(address)
        self.sync()
        counting = self.processor.pmu.armed()
        try:
            if writes:
                self._write(uc, index)
            else:
                self._read(uc, index)
        except GeneralProtection as refused:
            self._raise(GuestFault(PROTECTION, 0), address, refused)
        else:
            self._went_on(address + size)
            if self.processor.pmu.armed() != counting:
                self._pass()  # what starts and stops counters is not counted itself
            self.arm()
            self._step()
            return
        self.arm()

    def _write(self, uc: Uc, index: int) -> None:
        value = (uc.reg_read(reg.UC_X86_REG_RDX) & 0xFFFFFFFF) << 32 | (
            uc.reg_read(reg.UC_X86_REG_RAX) & 0xFFFFFFFF)
        try:
            self.processor.wrmsr(index, value)
        except GeneralProtection:
            if self._other_msr is None:
                raise
            self._other_msr(index, value)

    def _read(self, uc: Uc, index: int) -> None:
        try:
            value = self.processor.rdmsr(index)
        except GeneralProtection:
            if self._other_msr is None:
                raise
            value = self._other_msr(index, None) or 0
        self._result(value)

    def _result(self, value: int) -> None:
        self._uc.reg_write(reg.UC_X86_REG_RAX, value & 0xFFFFFFFF)
        self._uc.reg_write(reg.UC_X86_REG_RDX, value >> 32)

    def _went_on(self, address: int) -> None:
        """An instruction was served here: it retires, and execution continues after it."""
        self.recorder.retired(1)
        self._continue_at(address)

    @own
    def _cpuid(self, uc: Uc, data: Any) -> bool:
        try:
            self.sync()
            leaf, subleaf = (
                uc.reg_read(r) & 0xFFFFFFFF for r in (reg.UC_X86_REG_RAX, reg.UC_X86_REG_RCX))
            out = self.surroundings(leaf, subleaf, list(
                instructions.cpuid(self.engine, self.processor, leaf, subleaf)))
            for register, value in zip((reg.UC_X86_REG_RAX, reg.UC_X86_REG_RBX,
                                        reg.UC_X86_REG_RCX, reg.UC_X86_REG_RDX), out, strict=True):
                uc.reg_write(register, value)
        except BaseException as error:  # through Unicorn it would come with a message of ctypes
            self._failed(error)
        return True

    @own
    def _invalid(self, uc: Uc, data: Any) -> bool:
        try:
            return self._serve(uc)
        except Exception as error:  # the binding would replace it by its own
            self._failed(error)
            return True

    def _serve(self, uc: Uc) -> bool:
        """The engine does not support this instruction: XSAVES, XRSTORS, RDPMC, INT1, or #UD."""
        rip = uc.reg_read(reg.UC_X86_REG_RIP)
        self.engine.taken()
        bits = self.engine.internal_state().bits
        code = self._fetch(rip)
        decoded = decode_block(code, rip, bits).mnemonics[:1]
        _, size, name = decoded[0] if decoded else (rip, 0, "")
        serve = {"rdpmc": self._rdpmc, "int1": self._int1, "xsaves": self._xsave,
                 "xsaves64": self._xsave, "xrstors": self._xsave, "xrstors64": self._xsave}
        self.recorder.emulated(rip)
        self.sync()
        try:
            if name not in serve:
                raise GuestFault(UNDEFINED)
            serve[name](code[:size], rip, bits)
        except GuestFault as fault:
            if self._deliver is None and name not in serve:
                self.recorder.interrupted(rip, BranchClass.EXCEPTION, True)
                return False
            self._raise(fault, rip, None)
            self.arm()
            return True
        self.arm()
        if name != "int1":
            self._step()
        return True

    def _fetch(self, rip: int) -> bytes:
        """Up to 15 bytes of code; fewer if the next page is not there."""
        for size in (15, 0x1000 - rip % 0x1000):
            try:
                return self.engine.read(rip, min(size, 15))
            except GuestFault:
                continue
        return b""

    def _rdpmc(self, code: bytes, rip: int, bits: int) -> None:
        self._result(instructions.rdpmc(self.engine, self.processor))
        self._went_on(rip + len(code))

    def _xsave(self, code: bytes, rip: int, bits: int) -> None:
        address = instructions.operand_address(self.engine, code, rip, bits)
        restores = code.lstrip(_PREFIXES)[2] >> 3 & 7 == 3
        (instructions.xrstors if restores else instructions.xsaves)(
            self.engine, self.processor, address)
        self._went_on(rip + len(code))

    def _step(self) -> None:
        """The engine does not see what is served here: the trap of a single step."""
        if self._deliver is None or not self._uc.reg_read(reg.UC_X86_REG_RFLAGS) & _TF:
            return
        self._uc.reg_write(reg.UC_X86_REG_DR6, self._uc.reg_read(reg.UC_X86_REG_DR6) | _DR6_BS)
        self._debug(self._uc.reg_read(reg.UC_X86_REG_RIP))

    def _int1(self, code: bytes, rip: int, bits: int) -> None:
        """A debug exception, whatever the gate's DPL; a trap."""
        self._went_on(rip + len(code))
        self._debug(rip + len(code))

    # Exceptions

    @own
    def _interrupt(self, uc: Uc, vector: int, data: Any) -> None:
        internal, rip = self.engine.internal_state(), uc.reg_read(reg.UC_X86_REG_RIP)
        self.engine.taken()
        if vector == DEBUG and not internal.software:
            self._debug(rip)
            return
        if vector == PROTECTION and not internal.software and internal.cpl and (
                self._fetch(rip).lstrip(_PREFIXES)[:2] == _RDPMC):
            self._invalid(uc, data)  # the engine has CR4.PCE the wrong way round
            return
        self.recorder.interrupted(
            rip, BranchClass.SOFT_INT if internal.software else BranchClass.EXCEPTION,
            self._deliver is None)
        if self._deliver is not None:
            self.sync()
            self.deliver(vector, internal.error_code, None, internal.software)
            self.arm()

    def _debug(self, rip: int) -> None:
        """#DB clears LBREn before its handler runs, and is not recorded."""
        self.recorder.interrupted(rip, None)
        self.sync()
        self.processor.debug_exception()
        self.arm()
        if self._deliver is not None:
            self.deliver(DEBUG, None, None, False)

    def _raise(
        self, fault: GuestFault, rip: int, cause: GeneralProtection | None
    ) -> None:
        if self._deliver is None:
            raise fault from cause
        self.recorder.interrupted(rip, BranchClass.EXCEPTION)
        self.deliver(fault.vector, fault.error_code, fault.address, False)

    @own
    def deliver(
        self, vector: int, error_code: int | None, address: int | None, software: bool
    ) -> None:
        """Enter the guest's handler; what cannot be delivered is not recorded."""
        assert self._deliver is not None
        try:
            self._deliver(vector, error_code, address, software)
        except BaseException:
            self.recorder.cancel()
            raise
