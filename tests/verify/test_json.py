"""What `--json` prints is what docs/json.md states, whatever is asked for."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from pylbr.cli import main
from pylbr.selftest import groups
from pylbr.verify import bugs
from pylbr.verify.story import story_of
from tests.verify.explored import caught, explored

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "json.md").read_text()
SCHEMA = json.loads(re.search(r"^```json\n(.*?)^```", PAGE, re.M | re.S)[1])
STORY = "guest wrmsr LBR_CTL; guest branch; guest rdmsr LBR"
SMALL = ["--depth", "1", "--guests", "1", "--jobs", "1"]
#: Words after `pylbr` -> what it prints, exit status.
FORMS = {
    "searches": (["verify", "mediated", "arch-lbr-v2", *SMALL], ["search"], 0),
    "stories": (["verify", "mediated", "arch-lbr-v2", "--stories", *SMALL], ["search"], 0),
    "stories of flaws": (["verify", "--set", "bugs", "--stories"], ["flaw"], 0),
    "a broken claim": (["verify", "lease", "--flaw", "no-wipe", *SMALL], ["search"], 1),
    "flaws": (["verify", "--set", "bugs"], ["flaw"], 0),
    "public bugs": (["verify", "--set", "public"], ["bug"], 0),
    "a story": (["verify", "lease", "kvm-legacy", "--story", STORY], ["story"], 0),
    "what if": (["verify", "lease", "--what-if", f"IPI opens cpu at every point of {STORY}"],
                ["what_if"], 0),
    "walks": (["verify", "lease", "kvm-legacy", "--walk", "5000"], ["walk"], 0),
    "ownership": (["verify", "request", "--ownership"], "ownership", 0),
    "selftest": (["selftest", "-p", "kvm-legacy", "--group", "msrs"], "selftest", 0),
    "costs": (["arbitrate", "request", "lease", "--branches", "20000"], "arbitrate", 0),
    "a sweep": (["arbitrate", "request", "--branches", "5000", "--sweep"], "arbitrate", 0),
}


def holds(value, kind):
    """`value` is of that definition; a list of it, if the name is in a list."""
    of = {"$ref": f"#/$defs/{kind[0] if isinstance(kind, list) else kind}"}
    schema = {**SCHEMA, **({"type": "array", "minItems": 1, "items": of}
                           if isinstance(kind, list) else of)}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)


@pytest.fixture
def quick(monkeypatch):
    """Two bugs and two flaws stand for all."""
    monkeypatch.setattr(bugs, "catch", caught)
    monkeypatch.setattr(bugs, "BUGS", (bugs.BUGS[0], bugs.BUGS[-1]))
    monkeypatch.setattr("pylbr.verify.suites.known_flaws", lambda policy: {
        "kvm-legacy-designed": {"check-with-irqs-on": None}}.get(policy.name, {}))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_prints_what_the_page_states(name, capsys, quick):
    words, kind, status = FORMS[name]
    assert main([*words, "--json"]) == status
    holds(json.loads(capsys.readouterr().out), kind)
    assert f"`{kind[0] if isinstance(kind, list) else kind}`" in PAGE


def test_stories_end_where_the_property_breaks(capsys):
    assert main(["verify", "arch-lbr-v2", "--stories", "--json", *SMALL]) == 0
    found, = json.loads(capsys.readouterr().out)
    assert found["stories"].keys() == found["broken"].keys() > {"P1", "P5"}
    for name, story in found["stories"].items():
        assert len(story["steps"]) == found["broken"][name] == story["broken"][name]


def test_a_replayed_story_and_its_counterexample(tmp_path, capsys):
    bug = next(bug for bug in bugs.BUGS if bug.policy == "mediated-arch-lbr"
               and bug.property == "P1" and "XSAVES" in bug.what)
    file = tmp_path / "leak.story.json"
    file.write_text(caught(bug).story.to_json())
    assert main(["verify", "--replay", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    holds(told, "story")
    assert told["broken"]["P1"] == len(told["steps"])
    assert main(["selftest", "--counterexample", str(file), "--json", "--out",
                 str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    holds(told, "counterexample")
    assert main(["selftest", "--counterexample", str(tmp_path), "--json"]) == 0
    holds(json.loads(capsys.readouterr().out), ["reproduction"])
    assert told["shown"] and Path(told["program"]).exists() and Path(told["script"]).exists()


def test_a_failure_of_a_selftest_is_in_it(capsys, monkeypatch):
    """Failures that count, failures that are documented, and what was skipped."""
    from pylbr.selftest.ktap import Case, Group, Skip

    def skips():
        raise Skip("no compiler")

    monkeypatch.setattr("pylbr.cli.selftest.groups", lambda *_: [Group("one", (
        Case("good", lambda: (True, ["remark"])), Case("bad", lambda: (False, [])),
        Case("known", lambda: (False, []), expected=False), Case("skipped", skips)))])
    assert groups.groups and main(["selftest", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    holds(told, "selftest")
    assert told["failures"] == 1 and not told["groups"][0]["passed"]
    assert [(case["outcome"], case["remarks"], case["why"])
            for case in told["groups"][0]["cases"]] == [
        ("pass", ["remark"], ""), ("fail", [], ""), ("xfail", [], ""), ("skip", [], "no compiler")]


def test_the_schema_is_strict():
    with pytest.raises(jsonschema.ValidationError):
        holds({"policy": "lease", "groups": [], "failures": 0}, "selftest")
    with pytest.raises(jsonschema.ValidationError):
        holds([], ["search"])


def test_a_search_is_the_one_that_was_made():
    from pylbr.verify import run
    from pylbr.verify.models import Configuration
    result = explored(Configuration("arch-lbr-v2", depth=1, guests=1), ("P20", "P20b"))
    told = json.loads(json.dumps(run.json_of(result)))
    holds(told, "search")
    for name, (states, action) in result.broken.items():
        assert told["broken"][name] == len(states)
        assert story_of(result.configuration, name, (states, action)).property == name
