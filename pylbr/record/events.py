"""perf's events (``-e``) as far as programs can be recorded with them."""

from __future__ import annotations

from typing import Final

from pylbr.errors import CommandError
from pylbr.perf.event_names import named_event
from pylbr.record.constants import Counted

__all__ = ["EVENTS", "counted_event"]

#: Names, for help texts.
EVENTS: Final = {
    "branches": Counted.BRANCHES, "branch-instructions": Counted.BRANCHES,
    "instructions": Counted.INSTRUCTIONS, "cycles": Counted.CYCLES, "cpu-cycles": Counted.CYCLES,
    "br_inst_retired.near_taken": Counted.TAKEN, "taken": Counted.TAKEN,
}  # fmt: skip
_RAW: Final = 4  # PERF_TYPE_RAW
#: The same as ``rUUEE`` and ``cpu/event=0xEE,umask=0xUU/`` of Intel processors.
_BY_CODE: Final = {
    0x003C: Counted.CYCLES, 0x00C0: Counted.INSTRUCTIONS, 0x00C4: Counted.BRANCHES,
    0x20C4: Counted.TAKEN,
}  # fmt: skip


def counted_event(text: str) -> Counted:
    """What ``-e text`` counts.

    Raises
    ------
    CommandError
        There is no such event, or a modifier asks for the kernel.
    """
    name, _, modifiers = text.lower().partition(":")
    if "/" in text:  # cpu/event=0xc4,umask=0x20/u
        name, _, modifiers = text.lower().rpartition("/")
        name, modifiers = name + "/", modifiers.removeprefix(":")
    if set(modifiers) - set("up"):  # samples are precise without p, too
        raise CommandError(f"-e {text}: modifiers are u and p: user-mode QEMU has no kernel")
    coded = named_event(name, 0)
    code = coded.config if coded.type == _RAW else -1
    counted = EVENTS[name] if name in EVENTS else _BY_CODE.get(code)
    if counted is None:
        raise CommandError(f"-e {text}: no such event; there is {', '.join(EVENTS)}")
    return counted
