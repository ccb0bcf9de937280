"""Models that `pylbr verify` searches in plain Python, by name: TDX, and LBRs of AMD.

Each is a system of its own, with its own words, properties and flaws; they are no policies of
`pylbr.arbitration`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pylbr.errors import ConfigurationError, StateError
from pylbr.verify import plain_search, svm, svm_stack, tdx
from pylbr.verify.models import Configuration, Result
from pylbr.verify.plain_search import Ground, World
from pylbr.verify.script import Outcome, broken_in
from pylbr.verify.suites import FlawResult

__all__ = ["MODELS", "PlainModel", "broken_claims", "configuration_of", "mutants", "read",
           "search", "steps_of", "text_of", "what_if"]

_MARGIN = 40
_CANNOT = "cannot happen here"


@dataclass(frozen=True)
class PlainModel:
    """One model.

    Attributes
    ----------
    what : str
    ground : callable
        Flaws and features -> what is searched.
    titles : dict
        Property -> what it is that breaks it.
    flaws : dict
        What can be left out -> what that is.
    features : tuple of str
        What the model can have besides.
    holds : bool
        It claims all its properties; otherwise none, and it has no flaws either.
    """

    what: str
    ground: Callable[[frozenset[str], frozenset[str]], Ground]
    titles: dict[str, str]
    flaws: dict[str, str]
    features: tuple[str, ...] = ()
    holds: bool = True


def _without(fixes: Iterable[str], flaws: Iterable[str]) -> frozenset[str]:
    return frozenset(fixes) - {flaw.removeprefix("without-") for flaw in flaws}


def _one_record(release: str) -> Callable[[frozenset[str], frozenset[str]], Ground]:
    return lambda flaws, features: svm.ground(
        _without(svm.MERGED[release], flaws), "sev-es" in features)


def _stack(fixes: Iterable[str], offered: bool) -> Callable[
        [frozenset[str], frozenset[str]], Ground]:
    return lambda flaws, features: svm_stack.ground(
        _without(fixes, flaws), offered=offered, sev_es="sev-es" in features)


def _left_out(fixes: dict[str, str]) -> dict[str, str]:
    return {f"without-{name}": f"left out: {what}" for name, what in fixes.items()}


_SEV = ("sev-es",)
#: Name -> model.
MODELS: dict[str, PlainModel] = {
    "tdx": PlainModel(
        "a TD that has LBRs, and a host that saves and restores around it what the module does not",
        lambda flaws, _: tdx.ground(tdx.parts_without(flaws)), tdx.TITLES, tdx.FLAWS),
    "svm-6.1": PlainModel(
        "LBR virtualization of AMD, one record, Linux 6.1.192", _one_record("6.1"), svm.TITLES,
        {}, _SEV, holds=False),
    "svm": PlainModel(
        "the same, Linux 6.12.117", _one_record("6.12"), svm.TITLES,
        _left_out(svm.FIXES), _SEV),
    "svm-stack": PlainModel(
        "the LBR stack of AMD's LbrExtV2 beside a guest that is not offered it, Linux 6.12.117",
        _stack(svm_stack.MERGED["6.12"], False), svm_stack.TITLES, {}, _SEV, holds=False),
    "svm-stack-offered": PlainModel(
        "the same with a KVM that offers it and does all that this takes",
        _stack(svm_stack.FIXES, True), svm_stack.TITLES,
        _left_out(svm_stack.FIXES), _SEV),
}


def configuration_of(
    name: str, flaws: Sequence[str] = (), features: Sequence[str] = (),
) -> Configuration:
    """What is searched, as plain values.

    Raises
    ------
    ConfigurationError
        There is no such flaw or feature.
    """
    model = MODELS[name]
    for given, known, what in ((flaws, model.flaws, "flaw"),
                               (features, model.features, "feature")):
        for each in given:
            if each not in known:
                raise ConfigurationError(
                    f"{name} has no {what} {each!r}; it has {', '.join(known) or 'none'}")
    return Configuration(name, tuple(flaws), 1, 1, 1, tuple(features), (), 0)


def _ground(configuration: Configuration) -> Ground:
    return MODELS[configuration.policy].ground(
        frozenset(configuration.flaws), frozenset(configuration.features))


def broken_claims(name: str, broken: Iterable[str]) -> tuple[str, ...]:
    """Properties out of `broken` that the model claims to hold."""
    return tuple(broken) if MODELS[name].holds else ()


def search(configuration: Configuration) -> Result:
    """All states; `Result.broken` has the words of each way, all of which `steps_of` takes."""
    start = time.process_time()
    found = plain_search.search(*_ground(configuration))
    broken = {name: (words, words[-1]) for name, words in found.broken.items()}
    return Result(configuration, found.states, found.transitions, found.diameter, True,
                  time.process_time() - start, broken)


def mutants(name: str, report: Callable[[str], None] | None = None) -> Iterator[FlawResult]:
    """Every flaw by itself, and what it breaks that the model without it does not."""
    sound = search(configuration_of(name)).broken
    for flaw, what in MODELS[name].flaws.items():
        if report:
            report(f"{name} +{flaw}")
        result = search(configuration_of(name, (flaw,)))
        found = tuple(broken for broken in result.broken if broken not in sound)
        yield FlawResult(name, flaw, what, found, result)


def read(
    text: str, name: str | None = None, flaws: Sequence[str] = (), features: Sequence[str] = (),
) -> tuple[Configuration, tuple[str, ...]] | None:
    """A story as `text_of` writes it, or in one line with ``;`` between the items; None if it is
    of none of these models.

    Raises
    ------
    ConfigurationError
        There is no such flaw or feature.
    StateError
        Nothing happens in it.
    """
    items: list[str] = []
    for line in text.splitlines():
        for part in line.partition("#")[0].split(";"):
            part = re.sub(r"^\s*\d+\.\s", "", part).strip()
            if found := re.fullmatch(r"policy:\s*(\S+)(.*)", part):
                if name is None:
                    name = found[1]
                    flaws = [flaw.removeprefix("+") for flaw in found[2].split()]
            elif found := re.fullmatch(r"features:\s*(.*)", part):
                features = features or re.findall(r"[^\s,]+", found[1])
            elif part:
                items.append(" ".join(part.split()))
    if name not in MODELS:
        return None
    if not items:
        raise StateError("story: nothing happens in it")
    return configuration_of(name, flaws, features), tuple(items)


def _cpu(world: World) -> dict:
    registers = world.registers()
    guest = None if registers.owner == "host" else registers.owner
    return {"task": registers.owner, "guest": guest, "owner": registers.owner, "irqs": True,
            "records": list(registers.records), "recording": registers.recording}


def _step(word: str, before: World, world: World) -> dict:
    registers, seen = world.registers(), None
    if world.seen is not None:
        host = registers.owner == "host"
        seen = {"exposure": "sample" if host else "rdmsr",
                "guest": None if host else registers.owner,
                "records": [world.seen or "-"], "control": 0, "cut": False}
    return {"word": word, "cpu": 0, "seen": seen, "broken": tuple(sorted(world.broken)),
            "rest": registers.rest, "before": _cpu(before), "after": _cpu(world)}


def _after(world: World, word: str, number: int) -> World:
    possible = {can.lower(): after for can, after in world.successors()}
    if word.lower() not in possible:
        can = "; ".join(can for can, _ in world.successors())
        raise StateError(f"story: {word!r} cannot happen after step {number}; possible: {can}")
    return possible[word.lower()]


def steps_of(configuration: Configuration, items: Sequence[str]) -> list[dict]:
    """Run what is written, to the end, whatever breaks.

    Returns
    -------
    list of dict
        As `pylbr.verify.player.Player.steps`, as far as `pylbr.verify.script.json_of` and
        `pylbr.verify.timeline.timeline_of` take it.

    Raises
    ------
    StateError
        Something cannot happen where it is written.
    """
    unpack, first = _ground(configuration)
    world = unpack(first)
    steps: list[dict] = []
    for word in items:
        before, world = world, _after(world, word, len(steps))
        steps.append(_step(word, before, world))
    return steps


def text_of(configuration: Configuration, steps: Sequence[dict]) -> str:
    """What was played, as `read` takes it; the remarks are who runs and the registers."""
    c = configuration
    lines = [f"policy: {' '.join((c.policy, *('+' + flaw for flaw in c.flaws)))}"]
    if c.features:
        lines.append(f"features: {', '.join(c.features)}")
    known: set[str] = set()
    for number, step in enumerate(steps, 1):
        after = step["after"]
        beside = (f"{after['owner']}: {' '.join(after['records'])} "
                  f"{'on' if after['recording'] else 'off'}")
        if step["rest"]:
            beside += f"; {step['rest']}"
        if step["seen"]:
            beside += f"; reads {' '.join(step['seen']['records'])}"
        lines.append(f"{number:3}. {step['word']}".ljust(_MARGIN) + f" # {beside}")
        lines += [f"     # => {name} broken: {MODELS[c.policy].titles[name]}"
                  for name in step["broken"] if name not in known]
        known |= set(step["broken"])
    return "\n".join([*lines, *([] if known else ["     # => nothing broken"])])


def what_if(event: str, configuration: Configuration, items: Sequence[str]) -> list[Outcome]:
    """Place one event after every step of a story, and play the rest of it.

    Raises
    ------
    StateError
        The story itself cannot be played, or the event can nowhere happen.
    """
    steps_of(configuration, items)
    outcomes = [_placed(event, configuration, items, at) for at in range(len(items) + 1)]
    if all(outcome.problem == _CANNOT for outcome in outcomes):
        raise StateError(f"story: {event!r} can happen at no point of it")
    return outcomes


def _placed(event: str, configuration: Configuration, items: Sequence[str], at: int) -> Outcome:
    after = items[at - 1] if at else ""
    try:
        steps_of(configuration, [*items[:at], event])
    except StateError:
        return Outcome(after, at, {}, _CANNOT)
    for end in range(len(items), at - 1, -1):
        try:
            steps = steps_of(configuration, [*items[:at], event, *items[at:end]])
        except StateError as error:
            problem = str(error).removeprefix("story: ").split(";")[0]
            continue
        return Outcome(after, at, broken_in(steps), problem if end < len(items) else "")
    raise AssertionError("unreachable")
