"""A story as a sequence diagram in plain text: a column for each party, time downwards."""

from __future__ import annotations

from collections.abc import Sequence

from pylbr.verify.properties import TITLES
from pylbr.verify.script import broken_in, play, read
from pylbr.verify.words import STEPS

__all__ = ["CONTENDED", "diagram", "page"]

#: Contended cases: title, policy, story.
CONTENDED: tuple[tuple[str, str, str], ...] = (
    ("As implemented: a pinned event of the host, then the guest's first touch", "kvm-legacy",
     "switch to vCPU A; IPI opens cpu-exclude; host branch; guest rdmsr LBR; emulate; emulate"),
    ("As designed: the IPI takes the registers of a guest that records", "kvm-legacy-designed",
     "guest wrmsr LBR_CTL; guest branch; IPI opens cpu-exclude; vm-entry; guest rdmsr LBR"),
    ("request: perf asks, and is served at the next VM entry", "request",
     "guest wrmsr LBR_CTL; vm-entry; guest branch; IPI opens cpu-exclude; vm-entry; exit irq; "
     "exit-irqs-on; host branch; NMI"),
    ("mediated-arch-lbr: a guest that never set LBREn executes XSAVES", "mediated-arch-lbr",
     "switch to vCPU A; IPI opens cpu-exclude; host branch; guest xsaves"),
    ("lease: both record, and each image is there while its side runs", "lease",
     "guest wrmsr LBR_CTL; vm-entry; guest branch; IPI opens cpu-exclude; irq-return; host branch; "
     "vm-entry; guest branch; exit irq; after-exit; exit-irqs-on; host branch; NMI"),
)
_PARTIES = ("perf", "KVM", "guest")
_PERF = frozenset({"task-out", "task-in", "reschedule", "irq-return", "switch-irqs-on"})


def _party(step: dict) -> str:
    word = step["word"].split(": ")[-1]
    if word.startswith("guest"):
        return "guest"
    if word in STEPS:
        return "perf" if word in _PERF else "KVM"
    if word.startswith(("IPI", "NMI", "PMI", "PEBS", "timer", "host branch", "switch to host")):
        return "perf"
    return "KVM"


def diagram(steps: Sequence[dict]) -> str:
    """The diagram of a story that was played.

    Parameters
    ----------
    steps : sequence of dict
        `Player.steps`.

    Returns
    -------
    str
        Lines of four columns: what perf, KVM and the guest do, and then the owner of the registers
        and the records, newest first. What is read stands on the next line.
    """
    acts = [(_party(step), step["word"].removeprefix("guest A ").removeprefix("guest B "))
            for step in steps]
    widths = [max(len(word) for word in (party, *(w for p, w in acts if p == party))) + 1
              for party in _PARTIES]
    lines = ["".join(name.ljust(w) for name, w in zip(_PARTIES, widths, strict=True))
             + "registers",
             "".join(("-" * (w - 1)).ljust(w) for w in widths) + "-" * 9]
    before = None
    for step, (party, word) in zip(steps, acts, strict=True):
        after, seen = step["after"], step["seen"]
        registers = (f"{after['owner']}: {' '.join(after['records'])} "
                     f"{'on' if after['recording'] else 'off'}")
        row = "".join((word if party == name else "|").ljust(w)
                      for name, w in zip(_PARTIES, widths, strict=True))
        lines.append((row + ("" if registers == before else registers)).rstrip())
        if seen:
            viewer = f"guest {seen['guest']}" if seen["guest"] else "host"
            lines.append("".join("|".ljust(w) for w in widths)
                         + f"=> {viewer} reads {' '.join(seen['records'])}")
        before = registers
    return "\n".join(lines)


def page() -> str:
    """The diagrams of `CONTENDED`, as docs/contract-sequences.md has them."""
    parts = []
    for title, policy, story in CONTENDED:
        steps = play(read(story, policy))
        broken = ", ".join(f"{name} ({TITLES[name]})" for name in broken_in(steps))
        parts += [f"## {title}", "", "```", diagram(steps), "```", "",
                  f"Broken: {broken}." if broken else "Nothing is broken.", ""]
    return "\n".join(parts)
