"""Events to sample, named as ``perf record -e`` names them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lbrcore import BranchFlag
from lbrcore.events import ALL_CLASSES, CountedEvent
from pylbr.arch.perf_events import EVENTS, PerfEvent, event
from pylbr.errors import ConfigurationError
from pylbr.perf.abi import AttrFlag, SampleType
from pylbr.perf.event_names import HARDWARE, RAW, event_name, named_event
from pylbr.perf.stacks import Event

__all__ = ["EVERY_BRANCH", "SampledEvent", "find_event", "parse_event", "split_modifiers"]

#: An event of no processor: every row of the trace, those that fell through and interrupts
#: too.  Its samples are found by arithmetic.
EVERY_BRANCH = "every-branch"

#: perf's generic events: (event of Intel, event of AMD).
_GENERIC = {
    "cycles": ("CPU_CLK_UNHALTED.THREAD", "CPU_CLK_UNHALTED"),
    "instructions": ("INST_RETIRED.ANY", "RETIRED_INSTRUCTIONS"),
    "branches": ("BR_INST_RETIRED.ALL_BRANCHES", "RETIRED_BRANCH_INSTRUCTIONS"),
    "branch-misses": (
        "BR_MISP_RETIRED.ALL_BRANCHES", "RETIRED_BRANCH_INSTRUCTIONS_MISPREDICTED"),
}
#: Raw 0 is no event of a processor.  Of a software dummy perf prints no address.
_NO_EVENT = 0
_MISPREDICTED = sum(1 << flags for flags in range(8) if flags & BranchFlag.MISPRED)
_USER, _KERNEL = 0b1110, 0b0001


@dataclass(frozen=True)
class SampledEvent:
    """An event, how often it is sampled, and what perf calls it.

    Attributes
    ----------
    name : str
        As it was asked for.
    counted : CountedEvent
    type, config : int
        Of ``perf_event_attr``.
    select : int or None
        Event and unit mask as event select registers take them; None: no event of a counter.
    """

    name: str
    counted: CountedEvent
    type: int
    config: int
    select: int | None = None

    def attributes(self, branch_sample_type: int) -> Event:
        """The event as a file of stacks declares it."""
        flags = AttrFlag(0)
        if not self.counted.cpls & _USER:
            flags |= AttrFlag.EXCLUDE_USER
        if not self.counted.cpls & _KERNEL:
            flags |= AttrFlag.EXCLUDE_KERNEL
        kind = (SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.CPU
                | SampleType.PERIOD | SampleType.BRANCH_STACK)
        return Event(
            name=self.name, type=self.type, config=self.config, period=self.counted.period,
            sample_type=int(kind), branch_sample_type=branch_sample_type, flags=int(flags))


def parse_event(
    text: str, period: int, *, table: str = "architectural", jitter: int = 0, seed: int = 0,
    skid: int = 0,
) -> SampledEvent:
    """The event that ``-e TEXT`` means.

    Parameters
    ----------
    text : str
        A generic event of perf, an event of the processor by name, ``rUUEE`` or
        ``cpu/event=0xEE,umask=0xUU/``, or `EVERY_BRANCH`; then perhaps ``:`` and modifiers:
        ``u`` and ``k`` for the privilege levels, ``p`` for precise, which is no skid.
    period, jitter, seed, skid : int
        As `lbrcore.events.CountedEvent` has them.
    table : str
        Events of which processors: `pylbr.arch.features.Pmu.events`.

    Raises
    ------
    ConfigurationError
        No such event or modifier, or a period that no counter takes.
    """
    name, modifiers = split_modifiers(text)
    if set(modifiers) - set("ukp"):
        raise ConfigurationError(f"event {text!r}: modifiers are u, k and p, not {modifiers!r}")
    cpls = (_USER if "u" in modifiers else 0) | (_KERNEL if "k" in modifiers else 0)
    try:
        plain = CountedEvent(
            period, cpls=cpls or _USER | _KERNEL, jitter=jitter, seed=seed,
            skid=0 if "p" in modifiers else skid)
    except ValueError as error:
        raise ConfigurationError(f"event {text!r}: {error}") from None
    if name == EVERY_BRANCH:
        return SampledEvent(text, replace(plain, classes=ALL_CLASSES), RAW, _NO_EVENT)
    found = find_event(name, table)
    if found is None:
        raise ConfigurationError(
            f"event {text!r}: not known for this processor; these are: "
            + ", ".join([*_GENERIC, EVERY_BRANCH, *_names(table)]))
    kind, config, row = found
    counted = replace(
        plain, classes=row.classes, unit=row.unit,
        flags=_MISPREDICTED if row.mispredicted else plain.flags)
    return SampledEvent(text, counted, kind, config, row.umask << 8 | row.select)


def _names(table: str) -> list[str]:
    return [row.name.lower() for row in EVENTS if table in row.tables]


def split_modifiers(text: str) -> tuple[str, str]:
    """Name and modifiers of an event: ``cycles:u``, ``cpu/event=0xc4/u``."""
    if "/" in text:
        name, _, modifiers = text.rpartition("/")
        return name + "/", modifiers.removeprefix(":")
    name, _, modifiers = text.partition(":")
    return name, modifiers


def find_event(name: str, table: str) -> tuple[int, int, PerfEvent] | None:
    """Type and config in ``perf_event_attr`` of an event without modifiers, and its row."""
    key = name.lower()
    by_name = {row.name.lower(): row for row in EVENTS if table in row.tables}
    coded = named_event(key, 0)
    generic = event_name(replace(coded, name=""))
    if coded.type == HARDWARE and generic in _GENERIC:
        intel, amd = _GENERIC[generic]
        return HARDWARE, coded.config, by_name[(amd if table == "amd" else intel).lower()]
    row = by_name.get(key)
    if row is None and coded.type == RAW and 0 < coded.config < 1 << 16:
        row = event(table, coded.config & 0xFF, coded.config >> 8)
    return None if row is None else (RAW, row.umask << 8 | row.select, row)
