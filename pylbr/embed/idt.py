"""Delivery of exceptions and interrupts through the guest's IDT in long mode.

Source: SDM vol. 3, 6.12 to 6.15: gates, stack switching, double and triple faults.
"""

from __future__ import annotations

import struct

from unicorn import UcError
from unicorn import x86_const as reg

from pylbr.embed.engine import PAGE_FAULT, Engine, GuestFault
from pylbr.errors import LbrError

__all__ = ["ERROR_CODES", "DeliveryError", "TripleFault", "deliver"]

DOUBLE_FAULT, INVALID_TSS, NOT_PRESENT, STACK_FAULT, PROTECTION = 8, 10, 11, 12, 13
#: Vectors that push an error code.
ERROR_CODES = frozenset({8, 10, 11, 12, 13, 14, 17, 21})
_CONTRIBUTORY = frozenset({0, INVALID_TSS, NOT_PRESENT, STACK_FAULT, PROTECTION})
_INTERRUPT_GATE, _TRAP_GATE = 0xE, 0xF
_TF, _IF, _NT, _RF, _VM = 1 << 8, 1 << 9, 1 << 14, 1 << 16, 1 << 17
_IDT, _EXTERNAL = 2, 1
_REGISTERS = (
    reg.UC_X86_REG_RIP, reg.UC_X86_REG_CS, reg.UC_X86_REG_RFLAGS, reg.UC_X86_REG_RSP,
    reg.UC_X86_REG_SS,
)


class DeliveryError(LbrError):
    """The guest is in a mode in which this machine delivers nothing."""


class TripleFault(LbrError):
    """An exception was raised while a double fault was delivered: the processor shuts down.

    Attributes
    ----------
    vectors : tuple of int
        What was to be delivered, first one first, and last the fault in the double fault's way.
    """

    def __init__(self, vectors: tuple[int, ...]) -> None:
        self.vectors = vectors
        names = ", ".join(str(vector) for vector in vectors)
        super().__init__(f"triple fault (exceptions {names})")


def deliver(
    engine: Engine, vector: int, error_code: int | None = None, *, address: int | None = None,
    software: bool = False,
) -> int:
    """Enter the guest's handler; RIP is where the handler will return to.

    Parameters
    ----------
    vector : int
    error_code : int or None
        Pushed for vectors that have one, 0 if None.
    address : int or None
        For CR2.
    software : bool
        INT n, INT3, INTO: the gate's DPL counts.

    Returns
    -------
    int
        The vector that was delivered: 8 if `vector` could not be.

    Raises
    ------
    TripleFault
        The double fault could not be delivered either.
    DeliveryError
        Outside long mode.
    """
    internal = engine.internal_state()
    if internal.bits != 64 and not internal.flags & 1 << 14:
        raise DeliveryError(f"exception {vector} before long mode: no handler is looked for")
    vectors = [vector]
    while True:
        try:
            _enter(engine, vector, error_code or 0, address, software, internal.cpl)
            return vector
        except GuestFault as fault:
            if vector == DOUBLE_FAULT:
                raise TripleFault((*vectors, fault.vector)) from None
            vector, error_code, address = _second(vector, fault)
            vectors.append(vector)
            software = False


def _second(vector: int, fault: GuestFault) -> tuple[int, int | None, int | None]:
    """What is delivered after `fault` on the way to the handler of `vector` (table 6-5)."""
    first_page, second_page = vector == PAGE_FAULT, fault.vector == PAGE_FAULT
    contributory = fault.vector in _CONTRIBUTORY
    if (vector in _CONTRIBUTORY and contributory) or (
            first_page and (contributory or second_page)):
        return DOUBLE_FAULT, 0, None
    return fault.vector, fault.error_code, fault.address


def _enter(
    engine: Engine, vector: int, error_code: int, address: int | None, software: bool, cpl: int
) -> None:
    uc = engine.uc
    rip, cs, flags, rsp, ss = (uc.reg_read(register) for register in _REGISTERS)
    engine.set_cpl(0)  # the processor reads its tables and writes the stack as supervisor
    try:
        selector, offset, kind, ist = _gate(engine, vector, software, cpl)
        level = _code_level(engine, selector, cpl)
        if ist:
            stack = _task_state(engine, 0x24 + 8 * (ist - 1))
        elif level < cpl:
            stack = _task_state(engine, 4 + 8 * level)
        else:
            stack = rsp
        frame = struct.pack("<5Q", rip, cs, flags, rsp, ss)
        if vector in ERROR_CODES and not software:
            frame = struct.pack("<Q", error_code) + frame
        stack = (stack & ~0xF) - len(frame)
        engine.write(stack & (1 << 64) - 1, frame)
        if level < cpl:
            _load(engine, reg.UC_X86_REG_SS, 0, STACK_FAULT)
        _load(engine, reg.UC_X86_REG_CS, selector & ~3 | level, PROTECTION)
    except GuestFault:
        engine.set_cpl(cpl)
        raise
    engine.set_cpl(level)
    if address is not None:
        uc.reg_write(reg.UC_X86_REG_CR2, address)
    flags &= ~(_TF | _NT | _RF | _VM | (_IF if kind == _INTERRUPT_GATE else 0))
    uc.reg_write(reg.UC_X86_REG_RFLAGS, flags)
    uc.reg_write(reg.UC_X86_REG_RSP, stack & (1 << 64) - 1)
    uc.reg_write(reg.UC_X86_REG_RIP, offset)


def _gate(engine: Engine, vector: int, software: bool, cpl: int) -> tuple[int, int, int, int]:
    """Selector, offset, type and IST index of the gate of `vector`."""
    _, base, limit, _ = engine.uc.reg_read(reg.UC_X86_REG_IDTR)
    error = vector << 3 | _IDT | (0 if software else _EXTERNAL)
    if 16 * vector + 15 > limit:
        raise GuestFault(PROTECTION, error)
    low, selector, ist, rights, middle, high, _ = struct.unpack(
        "<HHBBHII", engine.read(base + 16 * vector, 16))
    kind, dpl = rights & 0x1F, rights >> 5 & 3
    if kind not in (_INTERRUPT_GATE, _TRAP_GATE) or software and dpl < cpl:
        raise GuestFault(PROTECTION, error)
    if not rights & 0x80:
        raise GuestFault(NOT_PRESENT, error)
    return selector, high << 32 | middle << 16 | low, kind, ist & 7


def _code_level(engine: Engine, selector: int, cpl: int) -> int:
    """Privilege level that a handler in the code segment `selector` runs at."""
    _, base, limit, _ = engine.uc.reg_read(reg.UC_X86_REG_GDTR)
    error = selector & 0xFFFC | _EXTERNAL
    if not selector & ~3:
        raise GuestFault(PROTECTION, _EXTERNAL)
    if selector & 4 or (selector | 7) > limit:  # no local descriptor tables here
        raise GuestFault(PROTECTION, error)
    rights = struct.unpack("<Q", engine.read(base + (selector & ~7), 8))[0] >> 40 & 0xFFFF
    level = rights >> 5 & 3
    if rights & 0x18 != 0x18 or level > cpl or rights >> 12 & 0x6 != 0x2:  # code; L=1, D=0
        raise GuestFault(PROTECTION, error)
    if not rights & 0x80:
        raise GuestFault(NOT_PRESENT, error)
    return cpl if rights & 4 else level  # conforming code keeps the level


def _task_state(engine: Engine, offset: int) -> int:
    """A stack pointer of the 64-bit TSS."""
    selector, base, limit, _ = engine.uc.reg_read(reg.UC_X86_REG_TR)
    if offset + 7 > limit:
        raise GuestFault(INVALID_TSS, selector & 0xFFFC | _EXTERNAL)
    return int.from_bytes(engine.read(base + offset, 8), "little")


def _load(engine: Engine, register: int, selector: int, vector: int) -> None:
    try:
        engine.uc.reg_write(register, selector)
    except UcError:
        raise GuestFault(vector, selector & 0xFFFC) from None
