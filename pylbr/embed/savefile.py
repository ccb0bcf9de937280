"""A machine in a file: saved between two blocks, restored into a new machine.

Layout, little-endian: ``PYLBRVM4``, u32 bytes of the header, u32 its CRC-32, u64 bytes of the
body, u32 its CRC-32, u32 CRC-32 of all so far; the header, JSON; the body, memory compressed with
zstd.  Both checksums are compared before anything is believed.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import zstandard
from unicorn import UcError

from pylbr.arch import CpuModel
from pylbr.cpu import ProcessorState, decode, encode, migrate
from pylbr.embed import fxsave
from pylbr.embed.contention import Contention
from pylbr.embed.host_memory import host_memory
from pylbr.embed.machine import MIB, Machine, executable_model
from pylbr.embed.saved_registers import EFER, LMA, as_json, load_general, load_system
from pylbr.embed.vcpu import guest_model
from pylbr.errors import ConfigurationError, StateError
from pylbr.files.output import AtomicFile

__all__ = ["is_saved", "pack", "restore", "save"]

MAGIC = b"PYLBRVM4"
_FAMILY = MAGIC[:-1]
_HEAD = struct.Struct("<8sIIQII")
_LONGEST_HEADER = 1 << 22
#: Attributes of a machine with a state of their own; the clock first, by which the APIC counts.
_DEVICES = ("platform", "apic", "ioapic", "uart", "uart2", "cmos", "firmware")
#: A body is no larger: memory that does not compress, and zstd's own.
_LONGEST_BODY = (2048 + 16) * MIB


def is_saved(path: str | Path) -> bool:
    """The file begins like a saved machine, of any version."""
    with open(path, "rb") as stream:
        return stream.read(len(_FAMILY)) == _FAMILY


def pack(header: dict[str, Any], body: bytes) -> bytes:
    """The bytes of a file: header and compressed memory under their checksums."""
    text = json.dumps(header).encode()
    head = _HEAD.pack(MAGIC, len(text), zlib.crc32(text), len(body), zlib.crc32(body), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head)) + text + body


@host_memory()
def save(machine: Machine, path: str | Path) -> None:
    """Write a machine that has returned from `Machine.run`.

    Raises
    ------
    StateError
        The guest is not in long mode, or the machine has several processors.
    TraceError
        The file cannot be written.
    """
    if machine.processors > 1:
        raise StateError(f"a machine with {machine.processors} processors cannot be saved")
    uc = machine.uc
    if not uc.msr_read(EFER) & LMA:
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
        **{name: getattr(machine, name).state() for name in _DEVICES},
        "cpl": machine.link.engine.internal_state().cpl,
        **as_json(uc),
        "fxsave": region.hex(),
    }
    memory = zstandard.compress(bytes(uc.mem_read(0, machine.memory)))
    with AtomicFile(path) as out:
        out.file.write(pack(header, memory))


def restore(
    path: str | Path, *, console: Callable[[bytes], object] | None = None,
    output: Callable[[bytes], object] | None = None,
    trace: Callable[[npt.NDArray[np.void]], object] | None = None,
    contention: Contention | None = None, model: CpuModel | str | None = None,
) -> Machine:
    """A new machine in the state of the file; nothing of it is trusted.

    A machine that was saved under contention continues alone, or under the new `contention`; one
    that had its processor to itself keeps it.

    Parameters
    ----------
    model : CpuModel or str, optional
        Another processor to continue on.  It should have the features that the guest has found.

    Raises
    ------
    StateError
        Damaged, truncated, of an unknown version, or values that no machine can have; or `model`
        cannot continue what the other has begun.
    OSError
    """
    with open(path, "rb") as stream:
        text, body = _read(path, stream)
    try:
        with host_memory():
            header = json.loads(text)
            machine = _machine(path, header, console, output, trace, contention, model)
            _read_memory(machine, io.BytesIO(body))
            _load(machine, header)
    except _Refused:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error,
            ConfigurationError, UcError, zstandard.ZstdError, RecursionError) as error:
        raise StateError(
            f"{path}: damaged ({type(error).__name__}: {error})") from None
    machine.link.recorder.cpl = machine.link.engine.internal_state().cpl
    machine.link.arm()
    return machine


def _read(path: str | Path, stream: BinaryIO) -> tuple[bytes, bytes]:
    """Header and body, their checksums compared."""
    head = stream.read(_HEAD.size)
    if not head.startswith(_FAMILY):
        raise StateError(f"{path}: no saved machine")
    if not head.startswith(MAGIC):
        raise StateError(f"{path}: a saved machine of version "
                         f"{head[7:8].decode('latin-1')!r}; this reads version "
                         f"{MAGIC[7:].decode()} alone: run the guest and save it again")
    if len(head) != _HEAD.size or zlib.crc32(head[:-4]) != struct.unpack("<I", head[-4:])[0]:
        raise StateError(f"{path}: damaged: the checksum of its first bytes differs")
    _, length, text_crc, size, body_crc, _ = _HEAD.unpack(head)
    left = os.fstat(stream.fileno()).st_size - _HEAD.size
    if length > _LONGEST_HEADER or size > _LONGEST_BODY or length + size != left:
        raise StateError(f"{path}: damaged: {left} bytes, where {length} + {size} belong")
    text, body = stream.read(length), stream.read(size)
    for part, crc, what in ((text, text_crc, "header"), (body, body_crc, "memory")):
        if zlib.crc32(part) != crc:
            raise StateError(f"{path}: damaged: the checksum of its {what} differs")
    return text, body


def _machine(
    path: str | Path, header: dict[str, Any], console: Callable[[bytes], object] | None,
    output: Callable[[bytes], object] | None,
    trace: Callable[[npt.NDArray[np.void]], object] | None, contention: Contention | None,
    target: CpuModel | str | None,
) -> Machine:
    model = executable_model(header["model"])
    if not isinstance(header["virtual"], bool) or not isinstance(header["lost"], bool):
        raise TypeError("virtual, lost: neither true nor false")
    target = model if target is None else executable_model(target)
    if header["virtual"]:
        model, target = guest_model(model), guest_model(target)
    elif contention:
        raise ValueError("saved without a host: it has seen more depths than a guest has")
    if contention:
        contention.lost = header["lost"]
    state = decode(bytes.fromhex(header["processor"]), model)
    if target != model:
        state = _moved(path, state, target)
    return Machine(state, memory=int(header["memory"]), console=console, output=output,
                   trace=trace, contention=contention)


class _Refused(StateError):
    """Nothing is damaged, but the other processor cannot continue this."""


def _moved(path: str | Path, state: ProcessorState, target: CpuModel) -> ProcessorState:
    try:
        return migrate(state, target)
    except StateError as error:
        raise _Refused(f"{path}: {error}") from None


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
    load_system(machine.link.engine, header, machine.memory)
    region = bytes.fromhex(header["fxsave"])
    if len(region) != 512:
        raise ValueError("x87 and SSE state of another size")
    fxsave.load(machine.uc, region, fxsave.X87 | fxsave.SSE)
    load_general(machine.uc, header["registers"])
    for name in _DEVICES:
        getattr(machine, name).load(header[name])
