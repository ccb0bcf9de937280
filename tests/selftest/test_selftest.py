"""`pylbr selftest`: what it prints, that it can fail, and that every guest is built."""

import re

import pytest
from tap.parser import Parser

from pylbr.arbitration import POLICIES
from pylbr.cli import main
from pylbr.errors import ConfigurationError
from pylbr.selftest import guest_cases, guest_images
from pylbr.selftest.ktap import Case, Group, Skip, report
from pylbr.verify.mutants import mutant

LINE = re.compile(r"(  )?(not ok|ok) (\d+) ([^#]+?)(?: # (SKIP|XFAIL) .*)?$")


def run(capsys, *words):
    """Exit code, and (indented, passed, directive) of each result by its name."""
    code = main(["selftest", *words])
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "KTAP version 1" and re.fullmatch(r"1\.\.\d", lines[1])
    found = {}
    for line in lines:
        if "ok " in line and not line.lstrip().startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            found[match[4]] = (bool(match[1]), match[2] == "ok", match[5])
    plans = [int(n) for n in re.findall(r"^  1\.\.(\d+)$", text, re.M)]
    assert sum(plans) == sum(indented for indented, _, _ in found.values())
    return code, found


def test_a_policy_that_holds_everything_passes_everything(capsys):
    code, found = run(capsys, "-p", "mediated-merged", "--points", "1")
    assert code == 0
    assert [name for name, (indented, _, _) in found.items() if not indented] == [
        "request 1: it works", "request 2: it survives save and restore",
        "request 3: MSRs can and cannot be accessed as CPUID enumerates",
        "request 4: host and guest contend without a leak"]
    assert all(passed and not directive for _, passed, directive in found.values())
    assert len(found) > 50


def test_merged_code_shows_what_it_does_and_that_it_is_documented(capsys):
    code, found = run(capsys, "-p", "kvm-legacy", "--group", "contention", "--group", "msrs")
    assert code == 0 and len([name for name in found if name.startswith("request")]) == 2
    assert found["lbr_legacy beside a host: first touch"] == (True, False, "XFAIL")
    p1 = next(name for name in found if name.startswith("P1 in every interleaving"))
    assert found[p1] == (True, False, "XFAIL")
    assert found["msrs_test: every reserved bit faults"] == (True, True, None)
    assert main(["selftest", "--group", "msrs"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"# (\d+) registers\n  ok \d+ (.*?): ", out)[:3] == [("101", "msrs_test")] * 3


def test_a_hole_that_the_policy_does_not_document_fails(capsys, monkeypatch):
    monkeypatch.setitem(POLICIES, "leaky", lambda: mutant("request", ["keep-passthrough"]))
    code, found = run(capsys, "-p", "leaky", "--group", "contention")
    assert code == 1
    failed = [name for name, (_, passed, directive) in found.items()
              if not passed and not directive]
    assert "request 4: host and guest contend without a leak" in failed
    assert "IPI opens cpu-exclude at every micro-step" in failed
    assert any(name.startswith("P1 in") for name in failed)


def test_a_policy_of_ones_own_is_held_to_what_it_claims(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--new-policy", "mine"]) == 0
    capsys.readouterr()
    path = tmp_path / "mine.py"
    text = path.read_text().replace("return cpu.wanted", "return False")
    for claims, status in (("", 1), ('claims = ("P1", "P22")', 1), ('claims = ("P1", "P2")', 0)):
        path.write_text(text.replace('# claims = ("P1", "P2")', claims))
        code, found = run(capsys, "-p", "./mine.py", "--group", "contention")
        assert code == status
        p22 = next(name for name in found if name.startswith("P22 in"))
        assert found[p22] == (True, False, None if status else "XFAIL")
        assert found["IPI opens cpu-exclude at every micro-step"][1] is not bool(status)
    POLICIES.pop("mine")


def test_a_model_that_a_policy_is_not_for(capsys):
    assert main(["selftest", "-p", "kvm-legacy", "-m", "sapphire-rapids"]) == 2
    assert main(["selftest", "-m", "skylake"]) == 2
    assert main(["selftest", "--points", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_results_in_the_kernels_format():
    def skips():
        raise Skip("no such tool")

    lines = []
    failures = report([Group("first", (
        Case("a # b", lambda: (True, ["remark"])), Case("skipped", skips),
        Case("known", lambda: (False, []), expected=False))),
        Group("second", (Case("bad", lambda: (False, [])),))], lines.append)
    assert failures == 1
    assert lines == [
        "KTAP version 1", "1..2", "  KTAP version 1", "  # Subtest: first", "  1..3", "  # remark",
        "  ok 1 a \\# b", "  ok 2 skipped # SKIP no such tool",
        "  not ok 3 known # XFAIL documented of this policy", "ok 1 first", "  KTAP version 1",
        "  # Subtest: second", "  1..1", "  not ok 1 bad", "not ok 2 second"]


def parsed(lines):
    """(number, passed, description, directive) of each result at the top, and of each subtest, by
    tap.py, which knows nothing of indents: each level is given to it on its own."""
    def level(lines):
        found = list(Parser().parse_text("\n".join(lines)))
        assert found[0].category == "plan" and not any(
            result.category == "bail" for result in found)
        results = [result for result in found if result.category == "test"]
        assert [int(result.number) for result in results] == [
            *range(1, found[0].expected_tests + 1)]
        return [(result.ok, result.description, result.skip) for result in results]

    header = "KTAP version 1"
    assert lines[0] == header
    parts, inner = [], []
    for line in lines[1:]:
        if line == f"  {header}":
            inner = []
        elif line.startswith("  "):
            inner.append(line[2:])
        elif not line.startswith("1.."):
            parts.append(level([line for line in inner if not line.startswith("# Subtest")]))
    return level([line for line in lines[1:] if not line.startswith(" ")]), parts


def test_a_tap_parser_reads_the_results(capsys):
    assert main(["selftest", "-p", "kvm-legacy", "--group", "msrs", "--group", "contention"]) == 0
    top, parts = parsed(capsys.readouterr().out.splitlines())
    assert [ok for ok, _, _ in top] == [True, True] and len(parts) == 2
    assert all(ok for ok, _, _ in parts[0]) and not all(ok for ok, _, _ in parts[1])
    with pytest.raises(AssertionError):
        parsed(["KTAP version 1", "1..2", "  KTAP version 1", "  1..1", "  ok 1 a", "ok 1 b"])


def test_without_a_compiler_guests_are_skipped(capsys, monkeypatch):
    monkeypatch.setattr(guest_cases.shutil, "which", lambda _: None)
    code, found = run(capsys, "--group", "works")
    assert code == 0 and found["guest lbr_basic"] == (True, True, "SKIP")
    with pytest.raises(ConfigurationError, match="gcc is not installed"):
        guest_images.build(guest_images.GUESTS / "nowhere", "lbr_basic")


def test_what_gcc_says_is_one_line(tmp_path):
    wrong = tmp_path / "wrong.c"
    wrong.write_text("void test(void) { nothing(); }\n")
    with pytest.raises(ConfigurationError, match="guest wrong: .*nothing") as raised:
        guest_images.build(tmp_path, "wrong", source=wrong)
    assert "\n" not in str(raised.value)
