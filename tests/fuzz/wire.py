"""The memory that a recorded program shares with pylbr, and may write to."""

from __future__ import annotations

import random
import struct
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pylbr.perf.branch_filter import parse_filter
from pylbr.record import _wire
from pylbr.record.engine import Request, engine
from pylbr.record.output import PerfDataOutput
from pylbr.record.qemu import _Run
from pylbr.record.targets import TARGETS, X86_64
from pylbr.record.wire import Wire, WireOptions
from pylbr.record.wire_numbers import Message
from tests.fuzz import mutate

_SLOTS = 2
#: First byte of a seed: a full recording, or samples of a program for each target.
_FULL, _SAMPLES = 1, 0
_MODES = {_SAMPLES: X86_64, _FULL: X86_64,
          **dict(enumerate((target for target in TARGETS.values() if target is not X86_64), 2))}
#: Bytes of each part of the memory that a seed has.
_PARTS = {"head": 24, "slots": _SLOTS * _wire.SLOT_BYTES, "blocks": 8 * 32, "lengths": 64,
          "rings": 256, "messages": 512}
_SLOT = struct.Struct("<IIIIQQQQQ")
_BLOCK = struct.Struct("<QQIHHHHB3x")
_MESSAGE = struct.Struct("<IIQII")


def _message(kind: int, body: bytes) -> bytes:
    size = -(-(_MESSAGE.size + len(body)) // 8) * 8
    return (_MESSAGE.pack(size, kind, 7, len(body), 0) + body).ljust(size, b"\0")


def _blocks() -> bytes:
    """A conditional branch, a call, a return, a system call and a block without a branch."""
    rows = [(0x401000 + 16 * i, 0x401000 + 16 * ((i + 1) % 5), 4 * i, 16, 12, 4, 9, kind)
            for i, kind in enumerate((0, 4, 5, 9, 255))]
    return b"\0" * 32 + b"".join(_BLOCK.pack(*row) for row in rows)


@cache
def seeds() -> tuple[bytes, ...]:
    """Recordings of samples and a full one, part by part."""
    words = np.array([1, 2, 3, 4, 5, 1, 2], "<u4").tobytes()
    messages = b"".join((
        _message(Message.MMAP, struct.pack("<QQQ", 0x401000, 0x1000, 0) + b"/bin/true"),
        _message(Message.COMM, struct.pack("<I", 100) + b"true"),
        _message(1, struct.pack("<Q", 99) + words),
        _message(Message.NATIVE, b"/bin/su\0it has its own rights"),
        _message(Message.NAME, struct.pack("<I", 100) + b"other"),
    ))
    found = []
    for mode in _MODES:
        slot = _SLOT.pack(2, 100, 100, 1, 5, len(messages), 0, 0, 0)
        parts = {
            "head": struct.pack("<IIIIQ", 0, 6, 20, 1, 0), "slots": slot,
            "blocks": _blocks(), "lengths": bytes([4] * 20), "rings": words,
            "messages": messages,
        }
        found.append(bytes([mode]) + b"".join(
            parts[name].ljust(size, b"\0") for name, size in _PARTS.items()))
    return tuple(found)


def hostile(rng: random.Random, seed: bytes) -> bytes:
    """The mode stays."""
    changed = mutate.blind(rng, seed[1:])[:len(seed) - 1]
    return seed[:1] + changed.ljust(len(seed) - 1, b"\0")


def run(data: bytes, folder: Path) -> object:
    """Read the memory as after the program's end, into a file."""
    full, target = data[0] == _FULL, _MODES[data[0]]
    request = Request(["true"], full=full, target=target)
    done = SimpleNamespace(remarks=[], status=0)
    with Wire(WireOptions(full=full, slots=_SLOTS)) as wire:
        sink = _Sink() if full else PerfDataOutput(
            folder / "t.perf.data", request, engine("qemu"), parse_filter("any,u"), ["x"])
        with sink:
            reader = _Run(wire, request, sink, target)  # what it asks the head for, it asks now
            _spread(data[1:], wire)
            outcome = reader.finish(done)
            reader.close()
        return outcome.remarks, outcome.gaps, sink.count


def _spread(data: bytes, wire: Wire) -> None:
    at = 0
    for name, size in _PARTS.items():
        place = (_wire.HEADER_DTYPE.fields["stopped"][1] if name == "head"
                 else wire._places[name])
        wire.memory[place:place + size] = data[at:at + size].ljust(size, b"\0")
        at += size


class _Sink:
    """Takes the branches of a full recording."""

    count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def record(self, record):
        pass

    def expect(self, count, kept, ended):
        pass

    def branches(self, task, branches):
        self.count += len(branches)
        return True


def attacks() -> dict[str, bytes]:
    """What a program would write that wants to end or to hold up pylbr."""
    address = 0x401004
    event = [1, *(1 << 30 | address >> 30 * i & (1 << 30) - 1 for i in range(3)), 1 << 31 | 2, 2]
    words = np.array(event, "<u4").tobytes()
    sample = _message(1, struct.pack("<Q", 99) + words)
    empty = bytearray(_blocks())
    struct.pack_into("<H", empty, 32 + 24, 0)  # instructions of block 1
    unknown = np.array([1, 7, (1 << 30) - 1], "<u4").tobytes()
    far = 1 << 62

    def memory(mode: int, written: int = 0, chunks: int = 0, **parts: bytes) -> bytes:
        filled = {
            "head": struct.pack("<IIIIQ", 0, 6, 20, 1, 0),
            "slots": _SLOT.pack(2, 100, 100, 1, 5, written, 0, chunks, 0), "blocks": _blocks(),
            "lengths": bytes([4] * 20), "rings": b"", "messages": b"", **parts}
        return bytes([mode]) + b"".join(
            filled[name].ljust(size, b"\0") for name, size in _PARTS.items())

    return {
        "a block without instructions": memory(
            _SAMPLES, len(sample), messages=sample, blocks=bytes(empty)),
        "the same in a full recording": memory(_FULL, rings=words, blocks=bytes(empty)),
        "messages without end": memory(_SAMPLES, far, messages=sample),
        "chunks without end": memory(_FULL, 0, far, rings=words),
        "numbers that no block has": memory(_FULL, rings=unknown),
        "samples in a full recording": memory(_FULL, len(sample), messages=sample),
        "a table of any length": memory(
            _FULL, rings=words, head=struct.pack("<IIIIQ", 0, 0xFFFFFFFF, 0xFFFFFFFF, 1, 0)),
    }
