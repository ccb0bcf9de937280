"""Stories as text: directives of the configuration, then what happens, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pylbr.arbitration import make_policy
from pylbr.errors import StateError
from pylbr.verify.models import FEATURES, KINDS, Configuration
from pylbr.verify.player import Player
from pylbr.verify.properties import TITLES
from pylbr.verify.suites import of_legacy

__all__ = ["Outcome", "Script", "broken_in", "json_of", "play", "read", "text_of", "what_if"]

_NUMBERS = ("cpus", "guests", "depth", "events")
_LISTS = ("features", "kinds")
_DIRECTIVE = re.compile(rf"\s*(policy|{'|'.join(_NUMBERS + _LISTS)}):\s*(.*?)\s*", re.I)
#: Column of what is printed beside the words.
_MARGIN = 40


@dataclass(frozen=True)
class Script:
    """A story as it is written.

    Attributes
    ----------
    configuration : Configuration
    items : tuple of str
        What happens, in order.
    """

    configuration: Configuration
    items: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What one event at one point of a story leads to.

    Attributes
    ----------
    after : str
        Words of the action after which it is placed; empty for the beginning.
    number : int
        How many actions of the story come before it.
    broken : dict
        Property -> number of the action that first breaks it, from 1.
    problem : str
        Why the rest of the story could not be played, or that the event cannot happen there.
    """

    after: str
    number: int
    broken: dict[str, int]
    problem: str = ""


def _directive(values: dict, name: str, value: str) -> None:
    if name == "policy":
        policy, *flaws = value.split()
        values["policy"], values["flaws"] = policy, tuple(f.removeprefix("+") for f in flaws)
    elif name in _NUMBERS:
        if not re.fullmatch(r"\d{1,3}", value):
            raise StateError(f"story: {name}: {value!r} is not a number")
        values[name] = int(value)
    else:
        values[name] = tuple(word for word in re.split(r"[\s,]+", value) if word)


def read(text: str, policy: str | None = None, flaws: Sequence[str] = ()) -> Script:
    """Of a text as `text_of` writes it, or of one line with ``;`` between the items.

    Parameters
    ----------
    policy : str, optional
        Instead of the one that the text names.

    Raises
    ------
    StateError
        There is nothing in it, no policy is named, or a directive is wrong.
    """
    values: dict = {"guests": 2, "kinds": tuple(KINDS), "events": 2,
                    "cpus": 2 if re.search(r"\bcpu 1:", text, re.I) else 1}
    items: list[str] = []
    for line in text.splitlines():
        for part in line.partition("#")[0].split(";"):
            if found := _DIRECTIVE.fullmatch(part):
                _directive(values, found[1].lower(), found[2])
            elif words := re.sub(r"^\s*\d+\.\s", "", part).strip():
                items.append(words)
    if policy:
        values["policy"], values["flaws"] = policy, tuple(flaws)
    if "policy" not in values:
        raise StateError("story: no policy; name one on the command line or as 'policy: NAME'")
    if "features" not in values:
        legacy = make_policy(values["policy"]).legacy
        values["features"] = of_legacy(FEATURES) if legacy else tuple(FEATURES)
    if not items:
        raise StateError("story: nothing happens in it")
    return Script(Configuration(**values), tuple(items))


def play(script: Script) -> list[dict]:
    """Run what is written.

    Returns
    -------
    list of dict
        `Player.steps`.

    Raises
    ------
    StateError
        Words are not known, or something cannot happen where it is written.
    ConfigurationError
        There is no such policy, or it cannot have that configuration.
    """
    player = Player(script.configuration.model(), script.configuration.cpus)
    for item in script.items:
        player.play(item)
    return player.steps


def broken_in(steps: Sequence[dict]) -> dict[str, int]:
    """Property -> number of the action that first breaks it, from 1."""
    broken: dict[str, int] = {}
    for number, step in enumerate(steps, 1):
        for name in step["broken"]:
            broken.setdefault(name, number)
    return broken


def _beside(step: dict) -> str:
    after, seen = step["after"], step["seen"]
    text = (f"{after['owner']}: {' '.join(after['records'])} "
            f"{'on' if after['recording'] else 'off'}")
    if seen:
        viewer = f"guest {seen['guest']}" if seen["guest"] else "host"
        cut = ", marked as cut" if seen["cut"] else ""
        text += f"; {viewer} reads by {seen['exposure']} {' '.join(seen['records'])}{cut}"
    return text


def text_of(configuration: Configuration, steps: Sequence[dict]) -> str:
    """What was played, as `read` takes it; the remarks are owner and registers after each action,
    newest record first, and whether they record."""
    c = configuration
    lines = [f"policy: {' '.join((c.policy, *('+' + flaw for flaw in c.flaws)))}",
             *(f"{name}: {getattr(c, name)}" for name in _NUMBERS),
             *(f"{name}: {', '.join(getattr(c, name))}" for name in _LISTS)]
    known: set[str] = set()
    number = 0
    for step in steps:
        inner = bool(step["before"]["frames"]) and step["word"] == step["before"]["frames"][-1][1]
        number += not inner
        head = " " * 5 if inner else f"{number:3}. "
        lines.append(f"{head}{step['word']}".ljust(_MARGIN) + f" # {_beside(step)}")
        lines += [f"     # => {name} broken: {TITLES[name]}" for name in step["broken"]
                  if name not in known]
        known |= set(step["broken"])
    if not known:
        lines.append("     # => nothing broken")
    return "\n".join(lines)


def json_of(configuration: Configuration, steps: Sequence[dict]) -> dict:
    """What was played, as plain values."""
    return {"configuration": configuration.to_dict(), "broken": broken_in(steps), "steps": [
        {"word": step["word"], "cpu": step["cpu"], "owner": step["after"]["owner"],
         "records": step["after"]["records"], "recording": step["after"]["recording"],
         "seen": step["seen"], "broken": list(step["broken"])} for step in steps]}


def what_if(event: str, script: Script) -> list[Outcome]:
    """Place one event at every micro-step of a story, and play the rest of it.

    An interrupt while a guest runs makes it exit, and comes as soon as it can after that.

    Raises
    ------
    StateError
        The story itself cannot be played, or the event can nowhere happen.
    """
    whole = [(step["cpu"], step["word"]) for step in play(script)]
    outcomes = [_placed(event, script, whole, at) for at in range(len(whole) + 1)]
    if all(outcome.problem == _CANNOT for outcome in outcomes):
        play(replace(script, items=(*script.items, event)))  # raises what is wrong with it
        raise StateError(f"story: {event!r} can happen at no point of it")
    return outcomes


_CANNOT = "cannot happen here"


def _placed(event: str, script: Script, whole: Sequence[tuple[int, str]], at: int) -> Outcome:
    player = Player(script.configuration.model(), script.configuration.cpus)
    after = whole[at - 1][1] if at else ""
    for _, word in whole[:at]:
        player.play(word)
    try:
        if not player.can(event) and not player.exits_for(event):
            return Outcome(after, at, {}, _CANNOT)
        player.play(event)
    except StateError:
        return Outcome(after, at, {}, _CANNOT)
    player.finish(player.steps[-1]["cpu"], len(player.steps[-1]["before"]["frames"]))
    problem = ""
    for _, word in whole[at:]:
        try:
            player.play(word)
        except StateError as error:
            problem = str(error).removeprefix("story: ").split(";")[0]
            break
    return Outcome(after, at, broken_in(player.steps), problem)
