"""Stories: they replay, they survive a file, and a timeline can be drawn of them."""

import json

import pytest

from pylbr.errors import ConfigurationError, StateError
from pylbr.verify.models import Configuration, explore
from pylbr.verify.story import Story, story_of
from pylbr.verify.timeline import timeline


@pytest.fixture(scope="module")
def story():
    configuration = Configuration(
        "arch-lbr-v2-fixed", ("ctl-loaded-when-reclaimed",), depth=1, guests=1)
    result = explore(configuration, ignore=("P20b",))
    return story_of(configuration, "P4", result.broken["P4"])


def test_story_ends_with_the_violation(story):
    steps = story.replay()
    assert "P4" in steps[-1]["broken"]
    assert not any(set(step["broken"]) - {"P20b"} for step in steps[:-1])
    text = story.text()
    assert "P4 broken" in text and "guest A makes a branch" in text
    assert len(text.splitlines()) < 45


def test_story_is_shortest(story):
    """No story with one action less: the level before was searched in full."""
    assert len(story.actions) == len(explore(
        story.configuration, ignore=("P20b",)).broken["P4"][0])


def test_file_round_trip(story, tmp_path):
    path = tmp_path / "a.story.json"
    path.write_text(story.to_json())
    again = Story.load(path)
    assert again == story and again.text() == story.text()


@pytest.mark.parametrize("damage", [
    lambda t: "", lambda t: "[]", lambda t: t.replace('"version": 1', '"version": 2'),
    lambda t: t.replace('"actions"', '"acts"'), lambda t: t.replace("pylbr story", "x"),
], ids=["empty", "list", "version", "keys", "format"])
def test_damaged_files_are_refused(story, damage):
    with pytest.raises(StateError, match="story"):
        Story.from_json(damage(story.to_json()))


def test_impossible_actions_are_refused(story):
    with pytest.raises(StateError, match="step 1"):
        Story(story.configuration, "P4", [(4, 0, 0)]).replay()
    with pytest.raises(StateError, match="does not break"):
        Story(story.configuration, "P4", story.actions[:-1]).replay()
    with pytest.raises(ConfigurationError):
        Story.from_json(story.to_json().replace("arch-lbr-v2-fixed", "x")).replay()


def test_timeline_is_a_chrome_trace(story):
    trace = json.loads(timeline(story))
    slices = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert {e["ph"] for e in trace["traceEvents"]} == {"M", "X", "i"}
    assert all(e["dur"] > 0 and e["ts"] >= 0 for e in slices)
    owners = [e["name"] for e in slices if e["tid"] == 2]
    assert owners[0] == "nobody" and "host" in owners
    total = len(story.actions)
    for track in (0, 1, 2, 4):
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices if e["tid"] == track)
        assert spans[0][0] == 0 and spans[-1][1] == total
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
