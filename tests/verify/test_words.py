"""Stories in words: what is printed is what is read, and what is written happens."""

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr.arbitration import POLICIES, make_policy
from pylbr.arbitration.microsteps import Step
from pylbr.cli import main
from pylbr.errors import StateError
from pylbr.verify import script
from pylbr.verify.models import FEATURES, KINDS, Configuration, explore
from pylbr.verify.player import Player
from pylbr.verify.replay import Run
from pylbr.verify.story import Story, story_of
from pylbr.verify.suites import of_legacy
from pylbr.verify.words import INSTRUCTIONS, STEPS, action_of, normal, word_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHORT = "guest wrmsr LBR_CTL; guest branch; IPI opens cpu-exclude; NMI after prepare-entry"


def told(text, policy="lease", **changes):
    each = script.read(text, policy)
    return script.play(script.Script(
        Configuration(**{**each.configuration.to_dict(), **changes}), each.items))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_action_reads_as_it_is_written(data):
    """A random run of everything: its text, read again, is the same run."""
    policy = data.draw(st.sampled_from(list(POLICIES)))
    cpus = data.draw(st.sampled_from([1, 2]))
    features = of_legacy(FEATURES) if make_policy(policy).legacy else tuple(FEATURES)
    configuration = Configuration(policy, (), 1 + data.draw(st.integers(0, 1)), 2, cpus, features,
                                  tuple(KINDS), 2)
    player = Player(configuration.model(), cpus)
    for _ in range(data.draw(st.integers(1, 60))):
        actions = player.run.actions()
        action = data.draw(st.sampled_from(actions))
        words = word_of(action, player.run.cpu(action[1]))
        if words not in STEPS:
            assert action_of(normal(words), action[1], actions) == action
        player.apply(action)
    again = script.read(script.text_of(configuration, player.steps))
    assert again.configuration == configuration
    assert [step["action"] for step in script.play(again)] == [
        step["action"] for step in player.steps]


def test_each_micro_step_and_instruction_has_a_name_of_its_own():
    assert len(set(STEPS.values())) == len(STEPS) == len(Step.__members__)
    names = [normal(words) for words in INSTRUCTIONS]
    assert len(set(names)) == len(names) == 21


def test_what_must_come_first_is_done():
    words = [step["word"] for step in told(SHORT)]
    assert words[0] == "switch to vCPU A" and words[-1] == "NMI"
    assert words[-2] == "prepare-entry" and words.count("vm-entry") == 2
    opened = words.index("IPI opens cpu-exclude")
    assert words[opened - 3:opened] == ["exit irq", "after-exit", "exit-irqs-on"]


@pytest.mark.parametrize(("text", "last"), [
    ("vm-entry", "vm-entry"), ("safe-point", "enter"), ("vcpu-put", "vcpu-put"),
    ("emulate", None), ("move-state", "move-state"), ("after-exit", "after-exit"),
    ("guest B xsaves", "guest B xsaves"), ("NMI branches before vm-entry", "NMI branches"),
    ("IPI opens cpu; IPI closes", "IPI closes cpu event 0"), ("CPU 1: host branch", None),
    ("guest WRMSR  lbr_ctl", "guest A wrmsr LBR_CTL"), ("exit", "exit irq"),
    ("host branch fault", "host branch fault"), ("guest A enable", None),
])
def test_short_forms(text, last):
    if text == "emulate":
        with pytest.raises(StateError, match="not reached"):
            told(text)  # an interrupt has nothing to emulate
        return
    steps = told(text)
    assert last is None or steps[-1]["word"] == last


def test_a_property_that_breaks_is_named(capsys):
    text = "guest wrmsr LBR_CTL; guest branch; exit; switch to host; IPI opens cpu-exclude"
    assert main(["verify", "lease", "--flaw", "no-wipe", "--story", text]) == 1
    out = capsys.readouterr().out
    assert "# => P20b broken: registers without an owner are not empty" in out
    assert main(["verify", "lease", "--story", text]) == 0
    assert capsys.readouterr().out.endswith("# => nothing broken\n")
    assert main(["verify", "kvm-legacy", "--story", text]) == 0, "it claims nothing"
    assert main(["verify", "lease", "--story", "; ".join(["host branch"] * 500)]) == 0, "no file"


def test_printed_edited_and_run_again(tmp_path, capsys):
    configuration = Configuration("lease", ("no-swap-back",), depth=1)
    name, path = next(iter(explore(configuration).broken.items()))
    story = story_of(configuration, name, path)
    (tmp_path / "a.story.json").write_text(story.to_json())
    assert main(["verify", "--replay", str(tmp_path / "a.story.json")]) == 1
    text = story.text()
    assert capsys.readouterr().out == text + "\n"
    file = tmp_path / "story.txt"
    file.write_text(text)
    assert main(["verify", "--story", str(file)]) == 1
    assert f"{name} broken" in capsys.readouterr().out
    file.write_text(text.replace(" +no-swap-back", ""))
    assert main(["verify", "--story", str(file)]) == 0
    assert main(["verify", "--story", str(file), "--json"]) == 0
    capsys.readouterr()
    assert main(["verify", "lease", "--story", str(file), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value[0]["broken"] == {} and value[0]["steps"][0]["owner"] == "unowned"


def test_what_if(capsys):
    story = "IPI opens cpu-exclude; vm-entry; guest wrmsr LBR_CTL; guest branch"
    outcomes = script.what_if("NMI branches", script.read(story, "lease"))
    assert len(outcomes) == 1 + len(told(story))
    assert not any(outcome.broken for outcome in outcomes)
    assert {outcome.problem for outcome in outcomes} == {"", "cannot happen here"}
    again = f"{story}; exit; vm-entry"
    late = script.what_if("IPI opens cpu", script.read(again.replace("IPI opens cpu-exclude; ", ""),
                                                       "request", ("no-recheck",)))
    assert [o.after for o in late if "P22" in o.broken] == ["enter"], "after the safe point"
    assert main(["verify", "lease", "--what-if", f"NMI at every point of {story}"]) == 0
    assert "| point | after" in capsys.readouterr().out
    assert main(["verify", "lease", "--json", "--what-if", f"NMI at every point of {story}"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["policy"] == "lease"


def test_an_interrupt_that_makes_a_policy_wait():
    """An IPI at any point changes what follows; the rest of the story is played all the same."""
    story = "vm-entry; guest wrmsr LBR_CTL; guest branch; guest rdmsr LBR"
    for policy in ("request", "lease", "mediated"):
        outcomes = script.what_if("IPI opens cpu-exclude", script.read(story, policy))
        placed = [outcome for outcome in outcomes if outcome.problem == ""]
        assert len(placed) > 5 and not any(outcome.broken for outcome in outcomes)


def test_names_and_versions_of_older_files_load():
    configuration = Configuration("arch-lbr-v2-fixed", ("no-xss-exiting",), depth=1, guests=1)
    name, path = next(iter(explore(configuration, ignore=("P20b",)).broken.items()))
    story = story_of(configuration, name, path)
    old = json.loads(story.to_json())
    old["version"], old["actions"] = 1, [list(action) for action in story.actions]
    old["configuration"] |= {"policy": "arch-lbr-v2-mended", "flaws": ["xsaves-door"]}
    assert Story.from_json(json.dumps(old)) == story


@pytest.mark.parametrize(("text", "message"), [
    ("guest fly", "'guest fly' is not known"), ("NMI", "cannot happen"),
    ("IPI opens nothing", "is not known"), ("NMI after lunch", "no micro-step 'lunch'"),
    ("reschedule", "write which"), ("CPU 5: NMI", "has 1 CPU"), ("", "nothing happens"),
    ("depth: x; NMI", "'x' is not a number"), ("# only a remark", "nothing happens"),
])
def test_mistakes_are_told(text, message):
    with pytest.raises(StateError, match=message):
        told(text)
    with pytest.raises(StateError, match="no policy"):
        script.read("NMI")


@pytest.mark.parametrize("words", [
    ["lease", "--story", "guest fly"], ["unknown", "--story", "NMI"], ["--story", "NMI"],
    ["lease", "--what-if", "NMI everywhere"], ["lease", "--what-if", "NMI at every point of exit"],
    ["lease", "--story", "features: x; NMI"]])
def test_mistakes_are_one_line(words, capsys):
    assert main(["verify", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("pylbr verify: ")


def test_stories_in_the_documents_run(capsys):
    """Each `--story` and `--what-if` that a page has as text; with a flaw, a claim breaks."""
    lines = [line.strip() for page in sorted(DOCS.glob("*.md"))
             for line in page.read_text().splitlines()
             if re.match(r"    pylbr verify .*--(story|what-if) \"", line)]
    assert len(lines) >= 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == ("--flaw" in line), line
        assert capsys.readouterr().out.count("\n") > 3


def test_the_page_lists_every_word():
    page = (Path(__file__).resolve().parents[2] / "docs" / "stories.md").read_text()
    for name in (*STEPS, *INSTRUCTIONS, *KINDS, *FEATURES):
        assert f"`{name}`" in page, name


def test_a_run_shows_names():
    run = Run(Configuration("request", depth=1).model())
    run.apply((2, 0, 1))
    assert run.cpu()["frames"] == [("switch", "task-in", 0, 1)]
    assert make_policy("request").claims is None
