"""A violation as a story: text in words, a file to replay, a timeline to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pylbr.errors import ConfigurationError, LbrError, StateError
from pylbr.verify.models import Configuration
from pylbr.verify.player import Player
from pylbr.verify.properties import TITLES, names_of
from pylbr.verify.replay import Run
from pylbr.verify.script import text_of

__all__ = ["Story", "story_of"]

#: Version 1 has actions as three numbers, version 2 in words.
VERSION = 2
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
            `Player.steps`.

        Raises
        ------
        StateError
            The actions do not lead where the story claims.
        """
        player = Player(self.configuration.model(), self.configuration.cpus)
        for action in self.actions:
            player.apply(action)
        steps = player.steps
        if not steps or self.property not in steps[-1]["broken"]:
            raise StateError(f"story: the last step does not break {self.property}")
        return steps

    def text(self) -> str:
        """What happens, in words, as `pylbr verify --story` takes it."""
        return (f"# {self.property}: {TITLES[self.property]}\n"
                f"{text_of(self.configuration, self.replay())}")

    def to_json(self) -> str:
        """A file that `from_json` replays."""
        return json.dumps({
            "format": "pylbr story", "version": VERSION, "property": self.property,
            "configuration": self.configuration.to_dict(),
            "actions": [step["word"] for step in self.replay()]}, indent=1)

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
            if value["format"] != "pylbr story" or value["version"] not in (1, VERSION):
                raise StateError(f"story: format {value['format']!r} version "
                                 f"{value['version']!r}, expected 'pylbr story' {VERSION}")
            configuration = Configuration.from_dict(value["configuration"])
            actions = ([_action(action) for action in value["actions"]] if value["version"] == 1
                       else _spoken(configuration, value["actions"]))
            return cls(configuration, _property(value["property"]), actions)
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


def _spoken(configuration: Configuration, words: object) -> list[tuple[int, int, int]]:
    """Actions of a file of version 2; each word is one action."""
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise StateError("story: the actions are no list of words")
    player = Player(configuration.model(), configuration.cpus)
    for number, word in enumerate(words, 1):
        player.play(word)
        if len(player.steps) != number:
            raise StateError(f"story: step {number}: {word!r} does not follow at once")
    return [step["action"] for step in player.steps]


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

