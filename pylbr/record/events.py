"""perf's events (``-e``) that the period of a recording can count."""

from __future__ import annotations

from typing import Final

from pylbr.arch.perf_events import PerfEvent
from pylbr.errors import CommandError
from pylbr.perf.abi import BranchSample
from pylbr.perf.event_names import named_event
from pylbr.perf.events import find_event, split_modifiers
from pylbr.perf.stacks import Event
from pylbr.record.wire_numbers import Counted

__all__ = ["EVENT_NAMES", "counted_event", "declared_event", "privileges_of"]

#: Processors whose events can be counted.
_TABLE: Final = "golden-cove"
_NAMES: Final = {
    Counted.BRANCHES: "branches", Counted.INSTRUCTIONS: "instructions", Counted.CYCLES: "cycles",
    Counted.TAKEN: "br_inst_retired.near_taken",
}  # fmt: skip
_ALIASES: Final = {"taken": _NAMES[Counted.TAKEN]}
#: Words of ``-e``, besides codes and the processor's own names of the same events.
EVENT_NAMES: Final = (
    "branches", "branch-instructions", "instructions", "cycles", "cpu-cycles",
    "br_inst_retired.near_taken", "taken",
)


def _found(name: str) -> tuple[int, int, PerfEvent]:
    found = find_event(name, _TABLE)
    assert found is not None, name
    return found


_COUNTED: Final = {_found(name)[2].name: counted for counted, name in _NAMES.items()}


def counted_event(text: str, system: bool = False) -> Counted:
    """What a period of the event that ``-e TEXT`` means counts; `system`: the kernel's, too.

    Raises
    ------
    CommandError
        Unknown event or modifier, or one that cannot be had here.
    """
    name, modifiers = split_modifiers(text.lower())
    if set(modifiers) - set("ukp" if system else "up"):  # samples are precise without p, too
        raise CommandError(f"-e {text}: modifiers are u, k and p" if system else
                           f"-e {text}: modifiers are u and p: user-mode QEMU has no kernel")
    found = find_event(_ALIASES.get(name, name), _TABLE)
    counted = None if found is None else _COUNTED.get(found[2].name)
    if counted is None:
        raise CommandError(f"-e {text}: no such event; there is {', '.join(EVENT_NAMES)}")
    return counted


def privileges_of(text: str | None, filter_: BranchSample) -> int:
    """Whose events ``-e TEXT`` counts, 1 the programs', 2 the kernel's, 3 both: those that it
    names, or else those whose branches are asked for."""
    wanted = set(split_modifiers((text or "").lower())[1]) & set("uk")
    if not wanted:
        wanted = {word for word, bit in (("u", BranchSample.USER), ("k", BranchSample.KERNEL))
                  if filter_ & bit}
    return ("u" in wanted) | ("k" in wanted) << 1


def declared_event(counted: Counted, privileges: int = 1) -> Event:
    """Name, type and config of the event that files of such samples declare; `privileges` as
    `privileges_of` has them."""
    suffix = ("", ":u", ":k", "")[privileges]
    if counted is Counted.TIME:
        return named_event(f"task-clock{suffix}", 0)
    name = _NAMES[counted]
    kind, config, _ = _found(name)
    return Event(f"{name}{suffix}", kind, config)
