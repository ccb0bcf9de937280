"""A violation as a story: numbered sentences, a file to replay, a timeline to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pylbr.errors import ConfigurationError, LbrError, StateError
from pylbr.verify.models import KINDS, Configuration
from pylbr.verify.properties import TITLES, names_of
from pylbr.verify.replay import Run
from pylbr.verify.steps import MICRO_STEPS, sentence

__all__ = ["Story", "story_of"]

VERSION = 1
#: No story file is larger: some thirty bytes an action, and paths have fewer than fifty.
MAX_SIZE = 1 << 20


@dataclass
class Story:
    """Actions from reset to a broken property.

    Attributes
    ----------
    property : str
    actions : list of (int, int, int)
        Kind, CPU, argument; see `pylbr.verify.world`.
    """

    configuration: Configuration
    property: str
    actions: list[tuple[int, int, int]]

    def replay(self) -> list[dict]:
        """Run it again.

        Returns
        -------
        list of dict
            Per action: ``text``, ``cpu``, ``before`` and ``after`` (`Run.cpu`), ``seen``,
            ``broken``.

        Raises
        ------
        StateError
            The actions do not lead where the story says.
        """
        run = Run(self.configuration.model())
        steps = []
        for number, action in enumerate(self.actions, 1):
            try:
                before = run.cpu(action[1])
                broken = names_of(run.apply(action))
            except (ValueError, IndexError, OverflowError) as error:
                raise StateError(f"story: step {number}: {error}") from None
            after = run.cpu(action[1])
            steps.append({
                "text": sentence(action, before, after), "cpu": action[1], "action": action,
                "before": before, "after": after, "seen": run.seen(), "broken": broken})
        if not steps or self.property not in steps[-1]["broken"]:
            raise StateError(f"story: the last step does not break {self.property}")
        return steps

    def text(self) -> str:
        """Numbered sentences; the micro-steps of one operation share a number."""
        steps = self.replay()
        c = self.configuration
        name = c.policy + "".join(f" +{flaw}" for flaw in c.flaws)
        lines = [f"{self.property}: {TITLES[self.property]}",
                 f"policy {name}, {c.cpus} CPU, {c.guests} guests, depth {c.depth}"]
        number = 0
        for step in steps:
            inner = step["action"][0] in MICRO_STEPS
            number += not inner
            head = " " * 5 if inner else f"{number:3}. "
            line = head + step["text"]
            if step["after"]["owner"] != step["before"]["owner"]:
                line += f"; registers: {step['before']['owner']} -> {step['after']['owner']}"
            lines.append(line)
        return "\n".join([*lines, *_evidence(steps[-1], self.property)])

    def to_json(self) -> str:
        """A file that `from_json` replays."""
        return json.dumps({
            "format": "pylbr story", "version": VERSION, "property": self.property,
            "configuration": self.configuration.to_dict(),
            "actions": [list(action) for action in self.actions]}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Story:
        """Read what `to_json` wrote.

        Raises
        ------
        StateError
            It is no story, or one of another version.
        """
        try:
            value = json.loads(text)
            if value["format"] != "pylbr story" or value["version"] != VERSION:
                raise StateError(f"story: format {value['format']!r} version "
                                 f"{value['version']!r}, expected 'pylbr story' {VERSION}")
            return cls(Configuration.from_dict(value["configuration"]),
                       _property(value["property"]), [_action(a) for a in value["actions"]])
        except LbrError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StateError(f"story: not a story file ({error!r})") from None

    @classmethod
    def load(cls, path: str | Path) -> Story:
        """Read a story file.

        Raises
        ------
        StateError, ConfigurationError
            It is no story, or one of a configuration that cannot be; the path leads the message.
        OSError
        """
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise StateError(f"{path}: no story is longer than {MAX_SIZE} bytes")
        try:
            story = cls.from_json(data.decode())
            story.replay()
        except UnicodeDecodeError as error:
            raise StateError(f"{path}: not a story file ({error})") from None
        except (StateError, ConfigurationError) as error:
            raise type(error)(f"{path}: {error}") from None
        return story


def _property(name: object) -> str:
    if name not in TITLES:
        raise StateError(f"story: there is no property {str(name)[:40]!r}")
    return str(name)


def _action(value: object) -> tuple[int, int, int]:
    """Kind, CPU, argument: three numbers."""
    if not isinstance(value, list) or len(value) != 3 or not all(type(n) is int for n in value):
        raise StateError(f"story: {str(value)[:40]} is no action; three numbers are")
    return value[0], value[1], value[2]


def _evidence(step: dict, name: str) -> list[str]:
    seen, after = step["seen"], step["after"]
    lines = [f"   => {name} broken" + (
        f" (with {', '.join(n for n in step['broken'] if n != name)})"
        if len(step["broken"]) > 1 else "")]
    if seen:
        who = f"guest {seen['guest']}" if seen["guest"] else "host"
        lines.append(f"      {who} reads by {seen['door']}: {' '.join(seen['records'])}")
    lines.append(f"      registers hold {' '.join(after['records'])}, "
                 f"recording {'on' if after['recording'] else 'off'}, owner {after['owner']}")
    return lines


def story_of(configuration: Configuration, name: str, path: tuple) -> Story:
    """Actions along a path of canonical states.

    A canonical state names guests and records its own way, so the concrete run looks for the
    action that leads to the next one.
    """
    states, last = path
    model = configuration.model()
    run = Run(model)
    actions: list[tuple[int, int, int]] = []
    for state in states[1:]:
        for action in run.actions():
            trial = run.copy()
            trial.apply(action)
            if trial.fingerprint() == state:
                run = trial
                actions.append(action)
                break
        else:
            raise StateError(f"story: no action leads to state {len(actions) + 1} of the path")
    for action in run.actions():
        trial = run.copy()
        if action[0] == last[0] and name in names_of(trial.apply(action)):
            return Story(configuration, name, [*actions, action])
    raise StateError(f"story: no last step breaks {name}")


assert set(KINDS.values())
