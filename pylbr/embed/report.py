"""Report of a guest that crashed: its registers, and from the LBRs the branches before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from unicorn import x86_const as reg

from pylbr.arch import br_type_name
from pylbr.embed.engine import GuestFault
from pylbr.embed.machine import Ending, Fault, Machine
from pylbr.embed.start import COLUMNS, ROWS, SCREEN

__all__ = ["report"]

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
            *(f"r{n}" for n in range(8, 16)))
_SYSTEM = ("cr0", "cr2", "cr3", "cr4")
_CODE_BYTES = 16


def _value(machine: Machine, name: str) -> int:
    number = getattr(reg, f"UC_X86_REG_{name.upper()}")
    value: int = machine.uc.reg_read(number)
    return value


def report(machine: Machine, ending: Ending, fault: Fault | None = None) -> str:
    """Registers, the bytes at RIP, the last exception and the LBR stack, newest first.

    Parameters
    ----------
    fault : Fault, optional
        What has brought the kernel to its end: the branch records of that time are shown.
    """
    image, machine = machine.image, machine.running
    machine.image = image
    rip = _value(machine, "rip")
    lines = [f"{ending.kind}: {ending.reason}"]
    if machine.processors > 1:
        lines.append(f"processor {machine.identity} of {machine.processors}")
    if fault is not None:
        lines.append(f"the kernel's exception: {fault.vector} at {_place(machine, fault.rip)}")
    elif machine.last_exception:
        vector, at = machine.last_exception
        lines.append(f"last exception: {vector} at {_place(machine, at)}")
    lines.append(f"rip {_place(machine, rip)}  rflags {_value(machine, 'rflags'):#x}  "
                 f"cs {_value(machine, 'cs'):#x}  ss {_value(machine, 'ss'):#x}  "
                 f"cpl {machine.link.engine.internal_state().cpl}")
    try:
        lines.append(f"code at rip: {machine.link.engine.read(rip, _CODE_BYTES).hex(' ')}")
    except GuestFault:
        lines.append("code at rip: not mapped")
    names = [f"{name:>3} {_value(machine, name):016x}" for name in _GENERAL]
    lines += ["  ".join(names[i:i + 4]) for i in range(0, len(names), 4)]
    lines.append("  ".join(f"{name} {_value(machine, name):x}" for name in _SYSTEM))
    recorder = machine.link.recorder
    lines.append(f"{recorder.instructions} instructions, {recorder.taken} branches taken")
    if fault is not None:
        stack = _stack(machine, fault.records, "branch records at the exception")
    else:
        stack = _stack(machine, machine.processor.records(), "branch records")
    return "\n".join([*lines, *stack, *_screen(machine)])


def _screen(machine: Machine) -> list[str]:
    """What the guest has written to the text screen, if anything."""
    cells = bytes(machine.uc.mem_read(SCREEN, 2 * COLUMNS * ROWS))[::2]
    rows = ["".join(chr(c) if 32 <= c < 127 else " " for c in cells[i:i + COLUMNS]).rstrip()
            for i in range(0, len(cells), COLUMNS)]
    while rows and not rows[-1]:
        rows.pop()
    return ["screen:", *rows] if rows else []


def _place(machine: Machine, address: int) -> str:
    name = machine.image.name(address) if machine.image else ""
    return f"{address:#x} <{name}>" if name else f"{address:#x}"


def _stack(machine: Machine, records: npt.NDArray[np.void], title: str) -> list[str]:
    filled = records[(records["from"] != 0) | (records["to"] != 0)]
    if not len(filled):
        return [f"no {title}: the guest had not switched its LBRs on"]
    lines = [f"{title}, newest first:"]
    arch = machine.processor.model.arch
    for i, entry in enumerate(filled):
        kind = br_type_name(int(entry["info"]) >> 56 & 15) if arch and arch.branch_type else ""
        lines.append(f"{i:3}  {_place(machine, int(entry['from']))} -> "
                     f"{_place(machine, int(entry['to']))}  {kind}".rstrip())
    return lines
