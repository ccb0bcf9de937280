"""Policies in plain Python: the same hooks, the same states, and mistakes in one line."""

import re
from pathlib import Path

import pytest

from pylbr import arbitration
from pylbr.arbitration import POLICIES, cython_file, make_policy, named, register_file
from pylbr.arbitration.plain import DOCUMENTED, HOOKS, CpuView, PlainPolicy, VcpuView
from pylbr.cli import main
from pylbr.errors import ConfigurationError
from pylbr.verify import template, template_cython
from pylbr.verify.explore import Explorer
from pylbr.verify.models import Configuration, explore
from pylbr.verify.properties import NAMES
from pylbr.verify.suites import EXTENDED
from pylbr.verify.template import Template
from tests.once import needs
from tests.verify.explored import explored


@pytest.fixture(autouse=True)
def registry():
    """What a test registers goes again."""
    before = dict(POLICIES)
    yield
    POLICIES.clear()
    POLICIES.update(before)


def count(policy, **more):
    explorer = Explorer(Configuration("request", **{"depth": 1, "guests": 1, **more}).model(policy))
    assert explorer.run(1 << 30)
    return explorer.states, explorer.transitions, explorer.depth, explorer.failed


def compiled(**more):
    result = explored(Configuration("request", **{"depth": 1, "guests": 1, **more}))
    return result.states, result.transitions, result.diameter, 0


@pytest.mark.parametrize("more", [{}, {"guests": 2}, *(
    pytest.param({**EXTENDED[name], "guests": 1}, marks=[pytest.mark.slow] * (name == "stack"))
    for name in ("stack", "vpmi", "nested", "pebs", "state"))])
def test_the_template_is_request_state_for_state(more):
    assert count(Template(), **more) == compiled(**more)


def test_every_hook_that_only_calls_its_default_changes_nothing():
    called = set()

    def calls(hook):
        def run(self, system, cpu, vcpu=None, part=0):
            called.add(hook)
            assert system.cpus == 1 and system.guests == 1 and system.depth == 1
            assert vcpu is None or vcpu.number == 0
            return cpu.default(hook, vcpu, part)
        return run

    own = ("safe_point", "pending", "before_entry")
    kind = type("All", (Template,), {hook: calls(hook) for hook in HOOKS if hook not in own})
    assert count(kind()) == compiled()
    assert called == HOOKS.keys() - {*own}
    kind = type("Bare", (PlainPolicy,), {hook: calls(hook) for hook in own} | {"name": "bare"})
    bare = type("Bare", (PlainPolicy,), {"name": "bare"})
    assert count(kind()) == count(bare())


@pytest.mark.parametrize(("hook", "property"), [
    ("pending", "P22"), ("perf_update", "P21"), ("vcpu_put", "P20"), ("after_exit", "P5"),
])
def test_a_hook_that_does_nothing_breaks_something(hook, property):
    broken = type("Broken", (Template,), {hook: lambda *_: None})
    assert count(broken())[3] >> NAMES.index(property) & 1


def test_what_a_policy_documents_and_claims():
    policy = Template()
    assert policy.name == "template" and policy.guest_short and policy.claims is None
    some = type("Some", (Template,), {"claims": ("P1",), "host_short": False, "guest_flag": True})
    assert some().claims == ("P1",)
    unnamed = type("Unnamed", (PlainPolicy,), {})
    assert unnamed().name == "Unnamed"


@pytest.mark.parametrize(("hook", "answer", "message"), [
    ("before_entry", lambda *_: 1 // 0, "before_entry: ZeroDivisionError"),
    ("before_entry", lambda *_: "x", "before_entry: it returns 'x', not the number"),
    ("safe_point", lambda *_: 0, "safe_point: it returns 0, not the number"),
    ("pending", lambda self: None, "pending: TypeError"),
    ("task_in", lambda self, system, cpu: cpu.nothing, "task_in: AttributeError"),
])
def test_mistakes_in_hooks_are_told(hook, answer, message):
    broken = type("Broken", (Template,), {hook: answer})
    with pytest.raises(ConfigurationError, match=f"policy template: {message}"):
        count(broken())


@pytest.mark.parametrize("name", ["pendign", "before_exit"])
def test_a_misspelt_hook_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"there is no hook '{name}'; hooks are perf_"):
        type("Broken", (Template,), {name: lambda *_: None})()
    type("Fine", (Template,), {f"_{name}": lambda *_: None})()


def test_a_claim_is_a_property():
    claimed = type("Claimed", (Template,), {"claims": ("P1", "P99")})()
    with pytest.raises(ConfigurationError, match="template claims 'P99', which is no property"):
        count(claimed)


def test_five_minutes(tmp_path, monkeypatch, capsys):
    """Write, run, break, run again, repair."""
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--new-policy", "my-policy"]) == 0
    path = tmp_path / "my_policy.py"
    assert "class MyPolicy(PlainPolicy)" in path.read_text()
    capsys.readouterr()
    assert main(["verify", "./my_policy.py", "--guests", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("| holds") == 13 and "| my-policy" in out
    text = path.read_text()
    path.write_text(text.replace("return cpu.wanted", "return False"))
    assert main(["verify", "./my_policy.py", "--guests", "1", "--stories", "--jobs", "2"]) == 1
    out = capsys.readouterr().out
    assert "# => P22 broken" in out
    (tmp_path / "story.txt").write_text("# P22" + out.split("# P22")[1])
    assert main(["verify", "./my_policy.py", "--story", "story.txt"]) == 1
    path.write_text(text)
    assert main(["verify", "./my_policy.py", "--story", "story.txt"]) == 0
    assert main(["verify", "./my_policy.py", "--walk", "20000"]) == 0
    capsys.readouterr()
    assert main(["arbitrate", "./my_policy.py", "request", "--branches", "200000",
                 "--session-every", "5000", "--session-length", "3000"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()
            if line.startswith("|")]
    assert [word.strip() for word in rows[0]][1:] == ["my-policy", "request"]
    assert len(rows) > 10 and all(row[1].strip() == row[2].strip() for row in rows[2:])


def test_a_claim_decides_the_exit_status(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["verify", "--new-policy", "mine"])
    path = tmp_path / "mine.py"
    text = path.read_text().replace("return cpu.wanted", "return False")
    path.write_text(text.replace("# claims", "claims"))
    assert main(["verify", "./mine.py", "--guests", "1"]) == 0, "P22 is not among its claims"
    path.write_text(text.replace('# claims = ("P1", "P2")', 'claims = ("P1", "P22")'))
    assert main(["verify", "./mine.py", "--guests", "1"]) == 1


def test_nothing_is_overwritten_and_names_are_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("precious")
    for name in ("mine", "lease", "../x", "Mine", ""):
        if name:
            assert main(["verify", "--new-policy", name]) == 2
    assert Path("mine.py").read_text() == "precious" and len(list(tmp_path.iterdir())) == 1
    assert "mine.py: File exists" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [
    ("x = 1", "it has no policy"), ("1 / 0", "ZeroDivisionError"), ("x =", "SyntaxError"),
    ("POLICIES = {'a': dict}", "policy 'a' is a dict"), (None, "No such file"),
    ("POLICIES = {}", "it has no policy"),
])
def test_files_that_are_no_policy(tmp_path, text, message, capsys):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        register_file(str(path))
    assert main(["verify", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(path) in err


def test_a_story_runs_no_file():
    """A name in a story is looked up, never run: only the command line names files."""
    with pytest.raises(ConfigurationError, match="there is no policy './mine.py'"):
        Configuration("./mine.py").model()
    assert named(["lease"]) == ["lease"] and make_policy("lease").check() is None


def test_the_page_and_the_template_have_every_hook_and_member():
    page = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text()
    members = [name for name in (*dir(CpuView), *dir(VcpuView)) if name[0] != "_"]
    for name in (*HOOKS, *DOCUMENTED, *members):
        assert f"`{name}" in page, name
    for name, arguments in HOOKS.items():
        assert f"\n{name}({arguments}) " in Path(template.__file__).read_text()


def test_a_file_in_cython(tmp_path, monkeypatch, capsys):
    """Written, run, broken, run again: the same states as in Python; nothing is left beside it."""
    needs("cc")
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--new-policy", "my-policy.pyx"]) == 0
    path = tmp_path / "my_policy.pyx"
    text = path.read_text()
    assert "cdef class MyPolicy(SingleOwner)" in text and "template" not in text.lower()
    assert named(["./my_policy.pyx"]) == ["my-policy"]
    result = explore(Configuration("my-policy", depth=1, guests=1))
    assert (result.states, result.transitions, result.diameter, 0) == compiled()
    path.write_text(text.replace("return c.wanted", "return False"))
    assert main(["verify", "./my_policy.pyx", "--depth", "1", "--guests", "1", "--jobs", "2",
                 "--stories"]) == 1
    assert "# => P22 broken" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]


def test_the_cython_template_lists_hooks_that_there_are():
    declared = (Path(arbitration.__file__).parent / "microsteps.pxd").read_text()
    listed = re.findall(r"^((?:void|int|bint) \w+\(.*?\))", template_cython.TEXT, re.M)
    assert len(listed) > 10
    for hook in listed:
        assert f"    cdef {hook} noexcept nogil\n" in declared


@pytest.mark.parametrize(("name", "text", "message"), [
    ("mine.pyx", "x = 1", "it has no policy"), ("mine.pyx", "raise ValueError(3)", "ValueError: 3"),
    ("mine.pyx", "cdef int x\ny = &x", "mine.pyx:2:"), ("mine.pyx", None, "No such file"),
    ("my-own.pyx", "x = 1", "name it as a module"),
])
def test_files_in_cython_that_are_no_policy(tmp_path, name, text, message, capsys):
    needs("cc")
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    assert main(["verify", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(path) in err and message in err


def test_a_file_in_cython_without_its_compilers(tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.pyx"
    path.write_text("x = 1")
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["verify", str(path)]) == 2
    assert "needs a C compiler: no-such-compiler" in capsys.readouterr().err
    monkeypatch.setattr(cython_file, "find_spec", lambda name: None)
    path.write_text("x = 2")
    assert main(["verify", str(path)]) == 2
    assert "needs Cython: pip install" in capsys.readouterr().err
