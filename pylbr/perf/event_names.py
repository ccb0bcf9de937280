"""Events by the names that perf gives them, and names of events that have none.

Sources: ``tools/perf/util/evsel.c`` and ``parse-events.c`` of Linux 6.1.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from pylbr.perf.stacks import Event

__all__ = ["HARDWARE", "RAW", "SOFTWARE", "event_name", "named_event"]

#: ``PERF_TYPE_*``.
HARDWARE: Final = 0
SOFTWARE: Final = 1
RAW: Final = 4
#: ``PERF_COUNT_HW_*`` and ``PERF_COUNT_SW_*``: the index is the number.
_NAMES: Final = {
    HARDWARE: (
        "cycles", "instructions", "cache-references", "cache-misses", "branches",
        "branch-misses", "bus-cycles", "stalled-cycles-frontend", "stalled-cycles-backend",
        "ref-cycles",
    ),
    SOFTWARE: (
        "cpu-clock", "task-clock", "page-faults", "context-switches", "cpu-migrations",
        "minor-faults", "major-faults", "alignment-faults", "emulation-faults", "dummy",
        "bpf-output", "cgroup-switches",
    ),
}
_ALIASES: Final = {
    "cpu-cycles": "cycles", "branch-instructions": "branches", "faults": "page-faults",
    "cs": "context-switches", "migrations": "cpu-migrations",
}
_NUMBERS: Final = {
    name: (kind, number) for kind, names in _NAMES.items() for number, name in enumerate(names)
}
#: Stands for an event that is not known.  perf prints no address of a software dummy.
_UNKNOWN: Final = (RAW, 0)
_RAW_NAME: Final = re.compile(r"(?:cpu/)?r([0-9a-f]{1,16})/?|raw 0x([0-9a-f]{1,16})")
_TERMS: Final = re.compile(r"cpu/(.+)/[a-zA-Z]*")
#: Where the terms of ``cpu/.../`` lie in config, as sysfs of Intel processors has them.
_TERM_SHIFTS: Final = {"event": 0, "umask": 8, "edge": 18, "inv": 23, "cmask": 24, "config": 0}


def named_event(name: str, sample_type: int) -> Event:
    """The event of this name; raw 0, which no processor has, where it is not more specific."""
    plain = name.split(":")[0]
    kind, config = _NUMBERS.get(_ALIASES.get(plain, plain)) or _raw(plain) or _UNKNOWN
    return replace(Event(), name=name, type=kind, config=config, sample_type=sample_type)


def _raw(name: str) -> tuple[int, int] | None:
    if match := _RAW_NAME.fullmatch(name):
        return RAW, int(match[1] or match[2], 16)
    match = _TERMS.fullmatch(name)
    if match is None:
        return None
    config = 0
    for term in match[1].split(","):
        key, _, value = term.partition("=")
        if key == "name":
            continue
        number = re.fullmatch(r"0x[0-9a-f]{1,16}|[0-9]{1,19}", value or "1")
        if key not in _TERM_SHIFTS or number is None:
            return None
        config |= int(number[0], 0) << _TERM_SHIFTS[key]
    return (RAW, config) if config < 1 << 64 else None


def event_name(event: Event) -> str:
    """Its name, or what perf calls an event of its type and config that has none."""
    names = _NAMES.get(event.type, ())
    if event.name:
        return event.name
    if event.config < len(names):
        return names[event.config]
    if event.type == RAW:
        return f"raw {event.config:#x}"
    return f"event:type={event.type},config={event.config:#x}"
