"""Stories: they replay, they survive a file, and a timeline can be drawn of them."""

import json

import pytest

from pylbr.cli import main
from pylbr.errors import ConfigurationError, StateError
from pylbr.verify.models import Configuration, explore
from pylbr.verify.story import Story, story_of
from pylbr.verify.timeline import timeline
from tests.verify.trace_events import check

STORY = """{"format": "pylbr story", "version": 1, "property": "P1", "configuration": {
"policy": "arch-lbr-v2", "flaws": [], "depth": 1, "guests": 1, "cpus": 1, "features": ["nmi",
"migrate", "xsaves", "write", "depth", "nmi-branch"], "kinds": ["cpu-exclude", "cpu"], "events": 1},
"actions": [[2, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [3, 0, 0], [7, 0, 3], [0, 0, 0], [0, 0, 0],
[0, 0, 0], [9, 0, 1], [0, 0, 0]]}"""


@pytest.fixture(scope="module")
def story():
    configuration = Configuration(
        "arch-lbr-v2-fixed", ("ctl-loaded-when-reclaimed",), depth=1, guests=1,
        kinds=("cpu-exclude", "cpu"))
    result = explore(configuration, ignore=("P20b",))
    return story_of(configuration, "P4", result.broken["P4"])


def test_story_ends_with_the_violation(story):
    steps = story.replay()
    assert "P4" in steps[-1]["broken"]
    assert not any(set(step["broken"]) - {"P20b"} for step in steps[:-1])
    text = story.text()
    assert "P4 broken" in text and "guest A branch" in text
    assert len(text.splitlines()) < 55


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
    lambda t: "", lambda t: "[]", lambda t: t.replace('"version": 2', '"version": 3'),
    lambda t: t.replace('"actions"', '"acts"'), lambda t: t.replace("pylbr story", "x"),
    lambda t: t.replace('"depth": 1', '"depth": "x"'),
    lambda t: t.replace('"cpus": 1', '"cpus": 1e9'),
    lambda t: t.replace('"guests": 1', '"guests": [1]'), lambda t: t.replace('"P4"', '"P99"'),
    lambda t: t.replace('"depth"', '"deep"'), lambda t: t.replace('"policy"', '"police"'),
    lambda t: t.replace('"actions": [', '"actions": [7, '), lambda t: "[" * 100_000,
    lambda t: t.replace('"depth": 1', '"depth": ' + "9" * 5000),
], ids=["empty", "list", "version", "keys", "format", "depth", "float", "guests", "property",
        "name", "no policy", "action", "nested", "digits"])
def test_damaged_files_are_refused(story, damage):
    with pytest.raises((StateError, ConfigurationError), match="story|configuration") as caught:
        Story.from_json(damage(story.to_json()))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["cpu", "depth"])
@pytest.mark.parametrize("change", [
    lambda t: t, lambda t: t[:200], lambda t: "\xff" + t, lambda t: t + " " * (1 << 20),
    lambda t: t.replace("[2, ", "[256, ", 1), lambda t: t.replace("[2, ", "[-1, ", 1),
], ids=["whole", "cut off", "not UTF-8", "too long", "kind", "negative"])
def test_a_damaged_story_is_one_line(name, change, tmp_path, capsys):
    text = {"cpu": STORY.replace("[2, 0, 1]", "[2, -1, 1]"),
            "depth": STORY.replace('"depth": 1', '"depth": "x"')}[name]
    path = tmp_path / "a.story.json"
    path.write_text(change(text), encoding="latin-1")
    assert main(["verify", "--replay", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(path) in error


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
    owners = [e["name"] for e in slices if e["tid"] == 3]
    assert owners[0] == "unowned" and "host" in owners
    total = len(story.actions)
    for track in (1, 2, 3, 5):
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices if e["tid"] == track)
        assert spans[0][0] == 0 and spans[-1][1] == total
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("damage", [
    lambda events: events[-1].update(ts="3"), lambda events: events[-1].pop("pid"),
    lambda events: events.append({**events[-1], "ts": 0}),
    lambda events: events.append({**slice_of(events), "dur": 1.5}),
    lambda events: events.append({**slice_of(events), "tid": 9}),
    lambda events: events.append({"ph": "B", "name": "open", "pid": 1, "tid": 4, "ts": 10**6}),
    lambda events: events.append(events[0]),
    lambda events: slice_of(events).update(tid=0)],
    ids=["time as text", "no process", "time goes back", "overlap", "no name of the track",
         "never ends", "two names", "the idle thread"])
def test_a_timeline_that_is_no_trace_is_told(story, damage):
    """The check itself sees types, names, order, overlaps and slices without an end."""
    trace = json.loads(timeline(story))
    check(json.dumps(trace))
    damage(trace["traceEvents"])
    with pytest.raises((AssertionError, KeyError)):
        check(json.dumps(trace))


def slice_of(events):
    return [event for event in events if event["ph"] == "X" and event["tid"] == 4][-1]


def two_processors():
    configuration = Configuration("lease", ("no-wipe",), depth=1, guests=1, cpus=2,
                                  features=(), kinds=("cpu-exclude",))
    return Story.from_json(json.dumps({
        "format": "pylbr story", "version": 2, "property": "P20b",
        "configuration": configuration.to_dict(), "actions": [
            "CPU 0: switch to vCPU A", "CPU 1: IPI opens cpu-exclude", "CPU 1: irq-return",
            "CPU 0: task-in", "CPU 1: host branch", "CPU 1: IPI closes cpu event 0"]}))


def test_the_timeline_of_two_processors():
    tracks = check(timeline(two_processors()))
    assert {pid for pid, _ in tracks} == {1, 2} and len(tracks) == 10
    assert [name for _, _, name in tracks[2, 3]] == ["unowned", "host", "unowned"][:2]
