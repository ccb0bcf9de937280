"""Processor state as bytes: versioned, checked, bounded.  ``docs/state.md`` has the diagrams.

Such bytes need not be trusted: sizes are checked before they are used, counts are
bounded, sections come once and in order, and every value then passes the checks of
``Processor.from_state``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pylbr.arch.features import CpuModel
from pylbr.arch.models import MODELS
from pylbr.cpu.processor import Processor
from pylbr.cpu.saved.state import (
    EnclaveState,
    LbrSnapshot,
    ModeState,
    MsrState,
    PmuSnapshot,
    ProcessorState,
    SmmState,
)
from pylbr.cpu.vmcs import BITMAP_SIZE
from pylbr.cpu.vmx import MAX_MSR_LIST
from pylbr.errors import StateError

__all__ = ["MAGIC", "MAX_SIZE", "VERSION", "decode", "encode", "headed", "opened"]

MAGIC = b"PYLBRCPU"
VERSION = 1
#: No state is larger: the largest holds a VMCS with three full MSR lists.
MAX_SIZE = 1 << 16

HEADER = struct.Struct("<8sHHIII")  # magic, version, 0, payload bytes, CRC-32 of them, 0
SECTION = struct.Struct("<HHI")  # tag, 0, body bytes
LBR = struct.Struct("<QIIHBBIQQQ4BI")
ENTRY = struct.Struct("<QQQ")
PMU = struct.Struct("<BBHIQQQQ")
VALUE = struct.Struct("<IQ")
CORE = struct.Struct("<QQQQQI")

MODEL_TAG, LBR_TAG, PMU_TAG, VALUES_TAG, CORE_TAG, VMCS_TAG = range(1, 7)
NO_CYCLES = 0xFFFFFFFF
#: Flags of CORE: in SMM, LBREn as the SMI found it, in a transaction, 64-bit mode; then
SMM_DEBUGCTL_HELD = 1 << 4
ENCLAVE_SHIFT, ENCLAVES = 5, ("", "in", "out")
VMCS_NUMBERS = (
    "pin_controls", "primary_controls", "secondary_controls", "exit_controls",
    "entry_controls", "guest_debugctl", "guest_lbr_ctl", "guest_perf_global_ctrl", "guest_dr7",
    "host_perf_global_ctrl", "exception_bitmap", "xss_exiting_bitmap",
    "entry_interruption_info", "exit_reason", "exit_qualification",
)
VMCS_LISTS = ("entry_msr_load", "exit_msr_store", "exit_msr_load")


# ---------------------------------------------------------------- to bytes

def _lbr(saved: LbrSnapshot) -> bytes:
    cycles = NO_CYCLES if saved.cycles is None else saved.cycles
    head = LBR.pack(saved.ctl, saved.depth, saved.tos, len(saved.entries), saved.enable,
                    saved.xinuse, cycles, *saved.ler, *saved.events, 0)
    return head + b"".join(ENTRY.pack(*entry) for entry in saved.entries)


def _pmu(saved: PmuSnapshot) -> bytes:
    head = PMU.pack(len(saved.pmc), len(saved.fixed), 0, 0, saved.fixed_ctrl, saved.global_ctrl,
                    saved.status, saved.pebs_enable)
    words = (*saved.pmc, *saved.evtsel, *saved.fixed)
    return head + struct.pack(f"<{len(words)}Q", *words)


def _pairs(pairs: tuple[tuple[int, int], ...]) -> bytes:
    return struct.pack("<I", len(pairs)) + b"".join(VALUE.pack(*pair) for pair in pairs)


def _core(state: ProcessorState) -> bytes:
    smm, mode = state.smm, state.mode
    flags = sum(on << bit for bit, on in enumerate(
        (smm.inside, smm.lbren, mode.in_tsx, mode.long_mode)))
    flags |= ENCLAVES.index(state.enclave.kind) << ENCLAVE_SHIFT
    if smm.debugctl is not None:
        flags |= SMM_DEBUGCTL_HELD
    return CORE.pack(state.msrs.debugctl, state.msrs.xcr0, smm.debugctl or 0,
                     state.enclave.entry, mode.cs_base, flags)


def _vmcs(pairs: tuple[tuple[str, object], ...]) -> bytes:
    fields: dict[str, Any] = dict(pairs)
    words = struct.pack(f"<{len(VMCS_NUMBERS)}Q", *(fields[name] for name in VMCS_NUMBERS))
    lists = b"".join(_pairs(fields[name]) for name in VMCS_LISTS)
    return words + bytes(fields["msr_bitmap"]) + lists


def encode(state: ProcessorState) -> bytes:
    """The bytes of a state.

    Only the model's name goes along; a model of one's own is given to `decode` again.
    """
    bodies = [
        (MODEL_TAG, state.model.name.encode()),
        (LBR_TAG, _lbr(state.msrs.lbr)),
        (PMU_TAG, _pmu(state.pmu)),
        (VALUES_TAG, _pairs(state.msrs.values)),
        (CORE_TAG, _core(state)),
        (VMCS_TAG, None if state.vmcs is None else _vmcs(state.vmcs)),
    ]
    payload = b"".join(
        SECTION.pack(tag, 0, len(body)) + body for tag, body in bodies if body is not None)
    return headed(MAGIC, VERSION, payload)


# ---------------------------------------------------------------- from bytes

class _Reader:
    """A bounded reader; every refusal names the offset."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def refuse(self, what: str) -> StateError:
        return StateError(f"state, offset {self.at:#x}: {what}")

    def take(self, layout: struct.Struct) -> tuple:
        return layout.unpack(self.bytes(layout.size))

    def bytes(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise self.refuse(f"{size} bytes expected, {self.end - self.at} left")
        self.at += size
        return self.data[self.at - size:self.at]

    def words(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}Q", self.bytes(8 * count))

    def pairs(self, most: int) -> tuple[tuple[int, int], ...]:
        (count,) = struct.unpack("<I", self.bytes(4))
        if count > most:
            raise self.refuse(f"{count} pairs; {most} at most")
        return tuple(self.take(VALUE) for _ in range(count))

    def zero(self, *values: int) -> None:
        if any(values):
            raise self.refuse("reserved bytes are not 0")

    def flag(self, value: int) -> bool:
        if value > 1:
            raise self.refuse(f"{value} is no flag")
        return bool(value)

    def done(self) -> None:
        if self.at != self.end:
            raise self.refuse(f"{self.end - self.at} bytes too many")


def opened(data: bytes | bytearray | memoryview, magic: bytes, versions: Iterable[int], most: int
           ) -> tuple[int, _Reader]:
    """Version and payload of an image of at most `most` bytes whose header and CRC are right."""
    if len(data) > most:
        raise StateError(f"state: {len(data)} bytes; no state has more than {most}")
    data = bytes(data)
    r = _Reader(data, 0, len(data))
    seen, version, zero, size, crc, zero2 = r.take(HEADER)
    if seen != magic:
        raise StateError(f"state, offset 0x0: magic {seen!r}, not {magic!r}")
    if version not in versions:
        raise StateError(f"state, offset 0x8: version {version}; these load: {list(versions)}")
    r.zero(zero, zero2)
    if size != r.end - r.at:
        raise r.refuse(f"{size} bytes of payload announced, {r.end - r.at} there")
    if zlib.crc32(data[r.at:]) != crc:
        raise r.refuse("the CRC does not match")
    return version, r


def headed(magic: bytes, version: int, payload: bytes) -> bytes:
    """An image: header and payload."""
    return HEADER.pack(magic, version, 0, len(payload), zlib.crc32(payload), 0) + payload


def _read_lbr(r: _Reader) -> LbrSnapshot:
    ctl, depth, tos, count, enable, xinuse, cycles, *rest = r.take(LBR)
    r.zero(rest[7])
    return LbrSnapshot(
        ctl, depth, tos, r.flag(enable), tuple(r.take(ENTRY) for _ in range(count)),
        tuple(rest[:3]), None if cycles == NO_CYCLES else cycles, tuple(rest[3:7]),
        r.flag(xinuse))


def _read_pmu(r: _Reader) -> PmuSnapshot:
    counters, fixed, zero, zero2, *control = r.take(PMU)
    r.zero(zero, zero2)
    words = r.words(2 * counters + fixed)
    return PmuSnapshot(words[:counters], words[counters:2 * counters], words[2 * counters:],
                       *control)


def _read_core(r: _Reader) -> tuple[int, int, SmmState, EnclaveState, ModeState]:
    """IA32_DEBUGCTL, XCR0, and the small parts."""
    debugctl, xcr0, smm_debugctl, enclave_entry, cs_base, flags = r.take(CORE)
    enclave = flags >> ENCLAVE_SHIFT
    if enclave >= len(ENCLAVES):
        raise r.refuse(f"flags {flags:#x} are not known")
    held = bool(flags & SMM_DEBUGCTL_HELD)
    if smm_debugctl and not held:
        raise r.refuse("a saved IA32_DEBUGCTL that is not held")
    inside, lbren, in_tsx, long_mode = (bool(flags >> bit & 1) for bit in range(4))
    return (debugctl, xcr0, SmmState(inside, lbren, smm_debugctl if held else None),
            EnclaveState(ENCLAVES[enclave], enclave_entry), ModeState(in_tsx, cs_base, long_mode))


def _read_vmcs(r: _Reader) -> tuple[tuple[str, object], ...]:
    fields: dict[str, object] = dict(zip(VMCS_NUMBERS, r.words(len(VMCS_NUMBERS)), strict=True))
    fields["msr_bitmap"] = r.bytes(BITMAP_SIZE)
    for name in VMCS_LISTS:
        fields[name] = r.pairs(MAX_MSR_LIST)
    return tuple(sorted(fields.items()))


READERS: dict[int, tuple[str, Callable[[_Reader], object]]] = {
    LBR_TAG: ("lbr", _read_lbr),
    PMU_TAG: ("pmu", _read_pmu),
    VALUES_TAG: ("values", lambda r: r.pairs(256)),
    CORE_TAG: ("core", _read_core),
    VMCS_TAG: ("vmcs", _read_vmcs),
}


def _sections(r: _Reader) -> Iterator[tuple[int, _Reader]]:
    last = 0
    while r.at < r.end:
        tag, zero, size = r.take(SECTION)
        r.zero(zero)
        if tag <= last or (tag != MODEL_TAG and tag not in READERS):
            raise r.refuse(f"section {tag} is unknown or out of order")
        if size > r.end - r.at:
            raise r.refuse(f"section {tag} claims {size} bytes, {r.end - r.at} are left")
        yield tag, _Reader(r.data, r.at, r.at + size)
        r.at += size
        last = tag


def _model(name: bytes, model: CpuModel | None) -> CpuModel:
    text = name.decode("ascii", "replace")
    if model is None:
        model = MODELS.get(text)
    if model is None:
        raise StateError(f"state: model {text[:64]!r} is not known; give the model")
    if model.name != text:
        raise StateError(f"state: saved on {text[:64]!r}, not on {model.name!r}; migrate it")
    return model


def _decode_1(r: _Reader, model: CpuModel | None) -> ProcessorState:
    parts: dict[str, Any] = {"vmcs": None}
    for tag, body in _sections(r):
        if tag == MODEL_TAG:
            parts["model"] = _model(body.bytes(body.end - body.at), model)
        else:
            name, read = READERS[tag]
            parts[name] = read(body)
        body.done()
    missing = {"model", "lbr", "pmu", "values", "core"} - set(parts)
    if missing:
        raise r.refuse(f"section {min(missing)} is missing")
    debugctl, xcr0, smm, enclave, mode = parts["core"]
    return ProcessorState(
        parts["model"], MsrState(parts["lbr"], parts["values"], debugctl, xcr0), parts["pmu"],
        smm, enclave, mode, parts["vmcs"])


#: Version -> reader.  An entry is never taken away: older states keep loading.
VERSIONS: dict[int, Callable[[_Reader, CpuModel | None], ProcessorState]] = {1: _decode_1}


def decode(data: bytes | bytearray | memoryview, model: CpuModel | None = None
           ) -> ProcessorState:
    """The state that `data` holds, checked as far as it would load.

    Parameters
    ----------
    data : bytes
        From `encode`; need not be trusted.
    model : CpuModel, optional
        The model of the state, where it is none of ``pylbr.arch.MODELS``.

    Raises
    ------
    StateError
        Damaged, truncated, of an unknown version, or values that the model cannot hold.
    """
    version, r = opened(data, MAGIC, VERSIONS, MAX_SIZE)
    state = VERSIONS[version](r, model)
    Processor.from_state(state)
    return state
