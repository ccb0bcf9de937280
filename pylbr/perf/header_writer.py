"""Header features of perf.data: what the file reports of the machine and the recording."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pylbr.perf.abi import BRANCH_COUNTER_BITS, BRANCH_COUNTERS, BranchSample, Feature
from pylbr.perf.event_names import event_name
from pylbr.perf.record_writer import padded
from pylbr.perf.stacks import BuildId, StacksMetadata

__all__ = ["feature_bodies"]

_STRING_ALIGNMENT = 64
_BUILD_ID_SIZE = 20
#: PERF_RECORD_MISC_BUILD_ID_SIZE: the byte after the id holds its length.
_MISC_BUILD_ID_SIZE = 1 << 15


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape") + b"\0"
    data += bytes(-len(data) % _STRING_ALIGNMENT)
    return struct.pack("<I", len(data)) + data


def _build_id(build: BuildId) -> bytes:
    size = len(build.build_id)
    if not 0 < size <= _BUILD_ID_SIZE:
        raise ValueError(f"{build.path}: a build-id of {size} bytes, not of 1 to 20")
    path = padded(build.path)
    return struct.pack(
        "<IHHi20sB3x", 0, build.misc & 7 | _MISC_BUILD_ID_SIZE, 36 + len(path), build.pid,
        build.build_id, size,
    ) + path  # fmt: skip


def _event_desc(metadata: StacksMetadata, attrs: Sequence[bytes]) -> bytes:
    body = struct.pack("<II", len(attrs), len(attrs[0]))
    for event, attr in zip(metadata.events, attrs, strict=True):
        body += attr + struct.pack("<I", len(event.ids)) + _string(event_name(event))
        body += struct.pack(f"<{len(event.ids)}Q", *event.ids)
    return body


def _capabilities(metadata: StacksMetadata) -> bytes:
    """CPU_PMU_CAPS: without the width of counters perf does not show what they logged."""
    found = dict(metadata.pmu_capabilities)
    if any(event.branch_sample_type & BranchSample.COUNTERS for event in metadata.events):
        found.setdefault("branch_counter_nr", str(BRANCH_COUNTERS))
        found.setdefault("branch_counter_width", str(BRANCH_COUNTER_BITS))
    words = [word for pair in found.items() for word in pair]
    return struct.pack("<I", len(found)) + b"".join(map(_string, words)) if found else b""


def feature_bodies(metadata: StacksMetadata, attrs: Sequence[bytes]) -> dict[Feature, bytes]:
    """Bodies by feature, in ascending order of their bits.

    ARCH, EVENT_DESC and BRANCH_STACK are always there: without the last ``perf report
    --branch-history`` refuses the file, and the others cost nothing.
    """
    words = metadata.command_line
    bodies = {
        Feature.BUILD_ID: b"".join(map(_build_id, metadata.build_ids)),
        Feature.HOSTNAME: _string(metadata.hostname) if metadata.hostname else b"",
        Feature.OSRELEASE: _string(metadata.os_release) if metadata.os_release else b"",
        Feature.VERSION: _string(metadata.perf_version) if metadata.perf_version else b"",
        Feature.ARCH: _string(metadata.arch or "x86_64"),
        Feature.NRCPUS: struct.pack("<II", metadata.cpus_available, metadata.cpus_online)
        if metadata.cpus_available else b"",
        Feature.CPUDESC: _string(metadata.cpu_description) if metadata.cpu_description else b"",
        Feature.CPUID: _string(metadata.cpuid) if metadata.cpuid else b"",
        Feature.TOTAL_MEM: struct.pack("<Q", metadata.total_memory)
        if metadata.total_memory else b"",
        Feature.CMDLINE: struct.pack("<I", len(words)) + b"".join(map(_string, words))
        if words else b"",
        Feature.EVENT_DESC: _event_desc(metadata, attrs),
    }  # fmt: skip
    present = {feature: body for feature, body in bodies.items() if body}
    present |= {Feature.BRANCH_STACK: b""}
    capabilities = _capabilities(metadata)
    return present | ({Feature.CPU_PMU_CAPS: capabilities} if capabilities else {})
