"""Lines of ``perf script --show-mmap-events --show-task-events``."""

from __future__ import annotations

import re
from typing import Any, Final

from pylbr.perf.abi import MISC_KERNEL, MISC_USER
from pylbr.perf.brstack import parse_marked
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap

__all__ = ["parse_record"]

_HEX: Final = rb"(?:0x)?([0-9a-f]{1,16})"
_MMAP: Final = re.compile(
    rb"PERF_RECORD_MMAP2? (-?\d{1,9})/(-?\d{1,9}): \[" + _HEX + rb"\(" + _HEX + rb"\) @ " + _HEX
    + rb"(?: ([0-9a-f]{1,8}):([0-9a-f]{1,8}) (\d{1,20}) (\d{1,20})| <?([0-9a-f]{0,40})>?)?\]: "
    rb"([rwxsp-]+) (.*)"
)
_COMM: Final = re.compile(rb"PERF_RECORD_COMM( exec)?: (.*):(-?\d{1,9})/(-?\d{1,9})")
_TASK: Final = re.compile(
    rb"PERF_RECORD_(FORK|EXIT)\((-?\d{1,9}):(-?\d{1,9})\):\((-?\d{1,9}):(-?\d{1,9})\)"
)
_LOST: Final = re.compile(rb"PERF_RECORD_LOST(?:_SAMPLES)?[ :]+(?:lost )?(\d{1,19})")
_PROTECTION: Final = {ord("r"): 1, ord("w"): 2, ord("x"): 4}


def parse_record(line: bytes) -> Mmap | Comm | Fork | Exit | Lost | tuple[()] | None:
    """The record of a line; ``()`` for one that is passed over, None if it is malformed."""
    if b"\0" in line:
        return None
    at = line.index(b"PERF_RECORD_")
    prefix, text = parse_marked(line[:at]), line[at:].rstrip()
    when = {} if prefix is None else {"time": prefix.time, "cpu": prefix.cpu}
    if text.startswith(b"PERF_RECORD_MMAP"):
        match = _MMAP.fullmatch(text)
        if match is None or max(int(match[8] or 0), int(match[9] or 0)) >= 1 << 64:
            return None
        return _mmap(match, when)
    if text.startswith(b"PERF_RECORD_COMM"):
        match = _COMM.fullmatch(text)
        if match is None:
            return None
        return Comm(int(match[3]), int(match[4]), _text(match[2]), bool(match[1]), **when)
    if text.startswith((b"PERF_RECORD_FORK", b"PERF_RECORD_EXIT")):
        match = _TASK.fullmatch(text)
        if match is None:
            return None
        pid, tid, ppid, ptid = (int(match[i]) for i in (2, 3, 4, 5))
        return (Fork if match[1] == b"FORK" else Exit)(pid, ppid, tid, ptid, **when)
    match = _LOST.match(text)
    return Lost(int(match[1]), when.get("time", 0)) if match else ()


def _mmap(match: re.Match[bytes], when: dict[str, Any]) -> Mmap:
    """`x` and `r` alone, as MMAP has them, or ``r-xp`` of MMAP2."""
    mode = match[11]
    protection = sum(_PROTECTION.get(byte, 0) for byte in set(mode)) | (mode == b"x")
    extra: dict[str, Any] = {}
    if match[8] is not None:
        extra = {"major": int(match[6], 16), "minor": int(match[7], 16),
                 "inode": int(match[8]), "generation": int(match[9])}
    elif match[10]:
        extra = {"build_id": bytes.fromhex(match[10].decode().zfill(len(match[10]) + 1 & ~1))}
    pid = int(match[1])
    start, length, offset = (int(match[i], 16) for i in (3, 4, 5))
    return Mmap(
        pid, int(match[2]), start, length, offset, _text(match[12]),
        prot=protection, flags=1 if b"s" in mode else 2,
        misc=MISC_KERNEL if pid == -1 else MISC_USER, **extra, **when,
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
