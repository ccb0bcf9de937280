"""A machine in a file: saved between two blocks, restored into a new machine.

Layout: ``PYLBRVM1``, u32 length of a JSON header, the header, memory compressed with zstd.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from unicorn import UcError
from unicorn import x86_const as reg

from pylbr.cpu import decode, encode
from pylbr.embed import fxsave
from pylbr.embed.contention import Contention
from pylbr.embed.machine import MIB, Machine, executable_model
from pylbr.embed.vcpu import guest_model
from pylbr.errors import ConfigurationError, StateError

__all__ = ["is_saved", "restore", "save"]

MAGIC = b"PYLBRVM1"
_LONGEST_HEADER = 1 << 20
_GENERAL = (
    "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", *(f"R{n}" for n in range(8, 16)),
    "RIP", "RFLAGS", "CR2", "DR0", "DR1", "DR2", "DR3", "DR6", "DR7",
)
_CONTROL = ("CR4", "CR3", "CR0")
_DATA_SEGMENTS = ("DS", "ES", "FS", "GS")
_TABLES = ("GDTR", "IDTR", "LDTR", "TR")
_EFER = 0xC0000080
#: SYSENTER, PAT, STAR, LSTAR, CSTAR, FMASK, FS, GS and kernel GS bases, TSC_AUX.
_MSRS = (0x174, 0x175, 0x176, 0x277, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084,
         0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103)
_LMA = 1 << 10


def _number(name: str) -> int:
    number: int = getattr(reg, f"UC_X86_REG_{name}")
    return number


def is_saved(path: str | Path) -> bool:
    """The file begins like a saved machine."""
    with open(path, "rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def save(machine: Machine, path: str | Path) -> None:
    """Write a machine that has returned from `Machine.run`.

    Raises
    ------
    StateError
        The guest is not in long mode.
    OSError
    """
    uc = machine.uc
    efer = uc.msr_read(_EFER)
    if not efer & _LMA:
        raise StateError("the guest is not in long mode yet: run it further, then save")
    machine.link.settle()
    region = bytearray(512)
    fxsave.save(uc, region, fxsave.X87 | fxsave.SSE)
    header = {
        "model": machine.processor.model.name,
        "memory": machine.memory,
        "virtual": machine.contention is not None,
        "lost": bool(machine.contention and machine.contention.flags() & 1),
        "processor": encode(machine.processor.state()).hex(),
        "apic": machine.apic.state(),
        "ioapic": machine.ioapic.state(),
        "uart": machine.uart.state(),
        "firmware": machine.firmware.state(),
        "cpl": machine.link.engine.hidden().cpl,
        "efer": efer,
        "registers": {name: uc.reg_read(_number(name)) for name in (
            *_GENERAL, *_CONTROL, "CS", "SS", *_DATA_SEGMENTS)},
        "tables": {name: list(uc.reg_read(_number(name))) for name in _TABLES},
        "msrs": {str(index): uc.msr_read(index) for index in _MSRS},
        "fxsave": region.hex(),
    }
    text = json.dumps(header).encode()
    memory = zstandard.compress(bytes(uc.mem_read(0, machine.memory)))
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(MAGIC + struct.pack("<I", len(text)) + text + memory)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def restore(
    path: str | Path, *, console: Callable[[bytes], object] | None = None,
    trace: Callable[[npt.NDArray[np.void]], object] | None = None,
    contention: Contention | None = None,
) -> Machine:
    """A new machine in the state of the file; nothing of it is trusted.

    A machine that was saved under contention goes on alone, or under the new `contention`; one
    that had its processor to itself goes on so.

    Raises
    ------
    StateError
        Damaged, truncated, of an unknown version, or values that no machine can have.
    OSError
    """
    with open(path, "rb") as stream:
        head = stream.read(len(MAGIC) + 4)
        if len(head) < len(MAGIC) + 4 or head[:len(MAGIC)] != MAGIC:
            raise StateError(f"{path}: no saved machine")
        length, = struct.unpack_from("<I", head, len(MAGIC))
        if length > _LONGEST_HEADER:
            raise StateError(f"{path}: damaged, a header of {length} bytes")
        text = stream.read(length)
        try:
            header = json.loads(text)
            machine = _machine(header, console, trace, contention)
            _read_memory(machine, stream)
            _load(machine, header)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error,
                ConfigurationError, UcError, zstandard.ZstdError, RecursionError) as error:
            raise StateError(
                f"{path}: damaged ({type(error).__name__}: {error})") from None
    machine.link.recorder.cpl = machine.link.engine.hidden().cpl
    machine.link.arm()
    return machine


def _machine(
    header: dict[str, Any], console: Callable[[bytes], object] | None,
    trace: Callable[[npt.NDArray[np.void]], object] | None, contention: Contention | None,
) -> Machine:
    model = executable_model(header["model"])
    if not isinstance(header["virtual"], bool) or not isinstance(header["lost"], bool):
        raise TypeError("virtual, lost: neither true nor false")
    if header["virtual"]:
        model = guest_model(model)
    elif contention:
        raise ValueError("saved without a host: it has seen more depths than a guest has")
    if contention:
        contention.lost = header["lost"]
    state = decode(bytes.fromhex(header["processor"]), model)
    return Machine(state, memory=int(header["memory"]), console=console, trace=trace,
                   contention=contention)


def _read_memory(machine: Machine, stream: Any) -> None:
    at = 0
    with zstandard.ZstdDecompressor().stream_reader(stream) as reader:
        while piece := reader.read(MIB):
            if at + len(piece) > machine.memory:
                raise ValueError("more contents than memory")
            machine.uc.mem_write(at, piece)
            at += len(piece)
    if at != machine.memory:
        raise ValueError("the contents of the memory end early")


def _load(machine: Machine, header: dict[str, Any]) -> None:
    uc, engine, registers = machine.uc, machine.link.engine, header["registers"]
    uc.msr_write(_EFER, _u64(header["efer"]))
    for name in _CONTROL:
        uc.reg_write(_number(name), _u64(registers[name]))
    for name in _TABLES:
        selector, base, limit, flags = (_u64(value) for value in header["tables"][name])
        uc.reg_write(_number(name), (selector & 0xFFFF, base, limit & 0xFFFFFFFF, flags))
    cpl = header["cpl"]
    if cpl not in (0, 3):
        raise ValueError(f"privilege level {cpl!r}")
    engine.set_cpl(cpl)
    for name in ("SS", "CS", *_DATA_SEGMENTS):
        uc.reg_write(_number(name), _u64(registers[name]) & 0xFFFF)
    engine.set_cpl(cpl)
    for index in _MSRS:
        uc.msr_write(index, _u64(header["msrs"][str(index)]))
    region = bytes.fromhex(header["fxsave"])
    if len(region) != 512:
        raise ValueError("x87 and SSE state of another size")
    fxsave.load(uc, region, fxsave.X87 | fxsave.SSE)
    for name in _GENERAL:
        uc.reg_write(_number(name), _u64(registers[name]))
    for name in ("apic", "ioapic", "uart", "firmware"):
        getattr(machine, name).load(header[name])


def _u64(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r} where a number of 64 bits belongs")
    return value
