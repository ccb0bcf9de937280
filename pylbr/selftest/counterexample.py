"""A counterexample of the search as a guest program and a contention script for `pylbr run`.

The guest executes what the story's guest does, in straight lines, so that nothing else is recorded;
at a write to port F5h the script has the host do what it does there.  What happens inside an
operation waits for its micro-step.  Then the guest looks at its records and registers and compares
them with those that it would have alone, and the script asks for the property on the host's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pylbr.arbitration import make_policy
from pylbr.arbitration.microsteps import Instruction
from pylbr.embed.contention import Contention, read_script
from pylbr.embed.contention_script import HOLDS, INSTRUCTIONS, OPEN_FLAGS
from pylbr.embed.image import load
from pylbr.embed.machine import MIB, Machine
from pylbr.errors import ConfigurationError
from pylbr.selftest.guest_images import build
from pylbr.selftest.guest_program import GuestProgram
from pylbr.verify.models import KINDS
from pylbr.verify.mutants import mutant
from pylbr.verify.player import Player
from pylbr.verify.story import Story
from pylbr.verify.suites import by_design
from pylbr.verify.words import instruction

__all__ = ["Reproduced", "reproduce", "reproduce_all", "write"]

#: What the guest's program looks at, if the property is about a guest.
_RECORDS = ("P1'", "P21")
_CONTROL = ("P1'", "P5")
_LER = ("P2", "P7")
_HOST = {"NMI": "sample", "PMI": "sample", "NMI branches": "branches 1", "timer rotates": "rotate",
         "host branch": "branches 1", "host counter overflows": "overflow", "PEBS record": "pebs"}
#: What a program of the machine does not execute: the script lets it happen to the vCPU.
_VCPU = ("init", "smi", "rsm", "db", "reset", "counter overflows", "PEBS record", "vmlaunch",
         "vmlaunch with controls", "vmcall", "wrmsr DEBUGCTL", "wrmsr LBR_FRZ 0")
_NAMES = {number: name for name, number in INSTRUCTIONS.items()}


@dataclass(frozen=True)
class Reproduced:
    """What a machine showed.

    Attributes
    ----------
    shown : bool
        The property is broken on the machine, too.
    lines : list of str
        What the guest printed, and the host's figures.
    """

    shown: bool
    lines: list[str]


@dataclass
class _Operation:
    """One that is in flight: what began it, and what happened inside."""

    act: str
    guest: bool
    task: str = ""              # of an interrupt: that runs then
    inner: list[str] = field(default_factory=list)


def _act(words: str) -> str:
    """What perf or the hardware does, as a script has it."""
    if words in _HOST:
        return _HOST[words]
    if words.startswith("IPI opens "):
        kind = words.removeprefix("IPI opens ")
        flags = [name for name, bit in OPEN_FLAGS.items() if KINDS[kind] & bit]
        return " ".join(("open", *flags))
    if words.startswith("IPI "):
        _, verb, context, _, slot = words.split()
        return f"{verb[:-1]} {context} {slot}"
    raise ConfigurationError(f"counterexample: no contention script has {words!r}")


class _Weaver:
    """Makes a program and a script of a story, step by step."""

    def __init__(self, story: Story, guest: str) -> None:
        self.story, self.guest = story, guest
        self.program = GuestProgram(make_policy(story.configuration.policy).legacy)
        self.points: list[list[str]] = []
        self.stretch: list[str] = []            # what the host does until the next VM entry
        self.instruction = ""                   # of the guest, which has exited meanwhile
        self.operation: _Operation | None = None
        self.task = guest                       # that the machine runs

    # Host

    def _write_point(self) -> None:
        if self.stretch:
            self.points.append(self.stretch)
            self.program.host_acts(len(self.points))
            self.stretch = []

    def settle(self) -> None:
        """The guest is to run: let the host act before its instruction or in its place."""
        if not self.instruction and all(" before " in act for act in self.stretch):
            self.stretch += ["exit"] * bool(self.stretch)
        self._write_point()
        if self.instruction:
            self.program.instruction(self.instruction)
            self.instruction = ""

    def _host(self, act: str, task: str, inner: Sequence[str] = ()) -> None:
        """With nothing in flight; in the exit of a guest's instruction before it is entered.  What
        happens inside waits already then, or begins to wait with it."""
        if self.instruction:
            self.stretch += [f"{act} before safe-point", *inner]
            return
        if task != self.task:
            self._switch(task)
        self.stretch += [*inner, act]

    def _before_whole(self) -> None:
        """What cannot happen inside an operation comes in an exit of its own."""
        if self.instruction:
            self.settle()

    def _switch(self, task: str) -> None:
        self.stretch.append("switch " + {self.guest: "guest", "host": "host"}.get(task, "other"))
        self.task = task

    # Steps

    def step(self, step: dict, sample: int) -> None:
        """One action of the story; `sample` is how many records the host's sample should have."""
        words, before, after = step["word"], step["before"], step["after"]
        task = before["task"].removeprefix("vCPU ")
        if not before["frames"]:
            self._begin(words, task)
        elif words != before["frames"][-1][1]:
            _, name, part, _ = before["frames"][-1]
            assert self.operation is not None
            act = _act(words) + (f" {sample}" if words == "NMI" and sample else "")
            self.operation.inner.append(f"{act} before {name}" + (f" {part}" if part else ""))
        if self.operation and not after["frames"]:
            self._end(self.operation)
            if after["guest"] == self.guest and before["guest"] == self.guest:
                self.settle()               # it has not exited
        if words == "NMI" and sample and not before["frames"]:
            self.stretch[-1] += f" {sample}"

    def _begin(self, words: str, task: str) -> None:
        if words.startswith("guest "):
            self._guest(words.split(" ", 2)[1], words.split(" ", 2)[2])
        elif words.startswith("exit "):
            act = words if words == "exit pmi" else "exit"
            self.operation = _Operation(act if task == self.guest else "", False)
        elif words == "enter":
            self.operation = _Operation("enter", task == self.guest)
        elif words.startswith("switch to "):
            self.operation = _Operation(words.removeprefix("switch to ").removeprefix("vCPU "),
                                        False)
        elif words == "migrate":
            if task != self.guest:
                raise ConfigurationError("counterexample: a script migrates its guest alone")
            self._before_whole()
            self.operation = _Operation("migrate", False)
        elif words.startswith(("IPI ", "timer ")):
            self.operation = _Operation(_act(words), False, task)
        else:
            self._host(_act(words), task)

    def _guest(self, who: str, words: str) -> None:
        number = -1 if words.startswith("branch") else instruction(words)
        if number == Instruction.GUEST_USER_FILTER or "kernel" in words:
            raise ConfigurationError("counterexample: the guest's program runs in ring 0 alone")
        if who != self.guest:
            fault = words.endswith("fault")
            act = ("fault" if fault else "branch") if number < 0 else _NAMES[number]
            self.operation = _Operation(f"other {act}", False)
            self.task = who
        elif words in _VCPU:
            self.settle()
            if words == "vmlaunch with controls":
                self.program.asks = "(host_flags() & 2)"
            if words == "reset":
                self.program.reset()
            self.operation = _Operation(f"vcpu {_NAMES[number]}", False)
        else:
            self.settle()
            self.instruction = words
            self.operation = _Operation("instruction", True)

    def _end(self, operation: _Operation) -> None:
        """It is over: what waits for its micro-steps comes before it."""
        self.operation = None
        act = operation.act
        if act in ("A", "B", "C", "D", "host"):
            if act == self.task and operation.inner:
                self._switch("host")
            self.stretch += operation.inner
            if act != self.task:
                self._before_whole()
                self._switch(act)
            return
        if operation.task:
            self._host(act, operation.task, operation.inner)
            return
        self.stretch += operation.inner
        if act == "enter":
            if operation.guest:
                self.settle()
        elif act and act != "instruction":
            self.stretch.append(act)

    def finish(self) -> None:
        """The story ends here."""
        if self.operation:
            self._end(self.operation)
        self.settle()


def _viewer(steps: list[dict]) -> str:
    """The guest whose view breaks the property, or who ran last."""
    last = steps[-1]
    seen = last["seen"] or {}
    ran = [s["after"]["task"] for s in steps if s["after"]["task"] != "host"]
    return (seen.get("guest") or last["after"]["guest"]
            or (ran[-1].removeprefix("vCPU ") if ran else "A"))


def _weave(story: Story) -> tuple[_Weaver, Player, str]:
    """The story's weaver, its player at the end, and whose view breaks it: a guest's, the host's,
    or user space's."""
    steps = story.replay()
    guest = _viewer(steps)
    player = Player(story.configuration.model(), 1)
    weaver = _Weaver(story, guest)
    for step in steps:
        player.apply(step["action"])
        asks = story.property == "P21" and len(player.steps) == len(steps)
        records = player.run.ideal_host() if asks else []
        weaver.step(step, sum(record.startswith("h") for record in records))
    seen = steps[-1]["seen"] or {}
    if seen.get("exposure") == "pebs" and story.property in _RECORDS:
        raise ConfigurationError("counterexample: no program looks into a PEBS record")
    viewer = "guest" if seen.get("guest") or (not seen and steps[-1]["after"]["guest"]) else "host"
    weaver.finish()
    if seen.get("exposure") == "saved-state" and story.property == "P5":
        wanted = player.run.ideal_control("ABCD".index(guest))["control"]
        weaver.points[-1][-1] = f"migrate {wanted:#x}"
        viewer = "user space"
    return weaver, player, viewer


def write(story: Story, directory: Path, stem: str) -> tuple[Path, Path]:
    """Write STEM.c and STEM.script.

    Raises
    ------
    ConfigurationError
        Something of the story cannot be placed on a machine.
    """
    configuration, name = story.configuration, story.property
    if configuration.cpus != 1:
        raise ConfigurationError("counterexample: a machine under contention has one processor")
    if name == "P3":
        raise ConfigurationError("counterexample: the guest's program runs in ring 0 alone")
    weaver, player, viewer = _weave(story)
    guests = viewer == "guest"
    program = weaver.program
    ideal = player.run.ideal_control("ABCD".index(weaver.guest))
    control = ideal["debugctl" if program.legacy else "control"]
    looks_at_control = guests and name in _CONTROL
    ler = guests and name in _LER and not program.legacy
    if looks_at_control:
        program.body.append("control = CONTROL();")
    if guests and name not in ("P5", "P6", "P20", "P20b", "P22", "P23"):
        program.look("xsaves" in configuration.features and not program.legacy, ler)
    text = program.text(
        f"{name} under {' +'.join((configuration.policy, *configuration.flaws))}", stem,
        control=control if looks_at_control else None,
        records=guests and name in _RECORDS, ler=guests and name == "P7")
    source, script = directory / f"{stem}.c", directory / f"{stem}.script"
    source.write_text(text)
    lines = [" ".join(("policy", configuration.policy, *(f"+{f}" for f in configuration.flaws)))]
    lines += ["perf freezes"] * ("host-freeze" in configuration.features)
    lines += [f"holds {name}"] * (name in HOLDS)
    lines += [f"port {n} {act}" for n, acts in enumerate(weaver.points, 1) for act in acts]
    script.write_text("\n".join(lines) + "\n")
    return source, script


def reproduce_all(
    paths: Iterable[Path], directory: Path, report: Callable[[str], None] | None = None,
) -> Iterator[tuple[Story, str]]:
    """Story by story: «shows», or why it does not.

    Parameters
    ----------
    paths : iterable of Path
        Files that `Story.load` reads.
    directory : Path
        For programs and scripts.
    report : callable, optional
        Is passed the name of each story before it runs.
    """
    for path in paths:
        story, stem = Story.load(path), path.name.removesuffix(".story.json")
        if report:
            report(stem)
        configuration = story.configuration
        if configuration.flaws and story.property in by_design(configuration.policy):
            yield story, "the policy breaks it without the flaw, too"
            continue
        try:
            shown = reproduce(story, directory, stem).shown
        except ConfigurationError as error:
            yield story, str(error).removeprefix("counterexample: ")
        else:
            yield story, "shows" if shown else "does not show"


def reproduce(story: Story, directory: Path, stem: str, policy: str | None = None) -> Reproduced:
    """Build the program, run it beside the script's host, and see whether the property breaks.

    Parameters
    ----------
    policy : str, optional
        Instead of the story's, with its flaws.
    """
    source, script = write(story, directory, stem)
    if policy:
        _, _, rest = script.read_text().partition("\n")
        script.write_text(f"policy {policy}\n{rest}")
    host, printed = Contention(read_script(script, mutant)), bytearray()
    model = "skylake" if make_policy(story.configuration.policy).legacy else "sapphire-rapids"
    machine = Machine(model, memory=4 * MIB, console=printed.extend, contention=host)
    machine.load(load(build(directory, stem, source=source)))
    ending = machine.run(10_000_000)
    lines = [*printed.decode(errors="replace").splitlines(), *host.summary().splitlines()]
    if (ending.kind, ending.code) not in (("exit", 0), ("exit", 1)):
        return Reproduced(False, [*lines, f"{ending.kind} {ending.code}"])
    return Reproduced(bool(host.unmet) or ending.code == 1, lines)
