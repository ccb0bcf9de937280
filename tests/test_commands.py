"""What holds of every command: options, usage, exit codes, suffixes, JSON."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pylbr.arch import FEATURE_SETS, MODELS
from pylbr.cli import COMMANDS, main, parser_of
from pylbr.cli.exit_codes import CODES
from pylbr.files.format import Format
from pylbr.record.recorded import OTHER_FORMS
from pylbr.trace.formats import formats
from pylbr.trace.output import TRACE_SUFFIXES
from tests.fuzz.targets import saved_machine

ROOT = Path(__file__).resolve().parent.parent
GZIP = str(ROOT / "examples" / "gzip.parquet")


def parser(command: str) -> argparse.ArgumentParser:
    (choices,) = (action.choices for action in parser_of(command)._actions
                  if isinstance(action, argparse._SubParsersAction))
    return choices[command]


def call(*words):
    """Exit code, standard output and error of a call in this process."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    return code, out.getvalue(), error.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    words = ["replay", GZIP, "-c", "20000", "-o", str(folder / "x.perf.data")]
    subprocess.run([sys.executable, "-m", "pylbr", *words], check=True)
    (folder / "machine.vm").write_bytes(saved_machine()[0])
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistake_is_answered_with_the_usage_of_its_command(command):
    code, out, error = call(command, "--no-such-option")
    assert code == 2 and not out
    assert error.startswith(f"usage: pylbr {command} ")
    last = error.splitlines()[-1]
    assert re.match(f"pylbr {command}: error: (unrecognized arguments: --no-such-option; see "
                    f"pylbr {command} --help|the following arguments are required: )", last)


def test_an_unknown_command_is_answered_with_those_that_there_are():
    code, _, error = call("repotr")
    assert code == 2 and error.startswith("usage: pylbr ") and "'report'" in error


@pytest.mark.parametrize("command", COMMANDS)
def test_the_exit_codes_are_in_the_help(command):
    code, out, _ = call(command, "--help")
    found = re.findall(r"^  (\d+|128\+N|else) +\S", out.partition("exit codes:\n")[2], re.M)
    assert code == 0 and out.count("exit codes:") == 1
    own = {one or "else" for one in CODES.get(command, {})}
    assert set(found) == own | {"2", "128+N"} | (set() if "else" in own else {"0"})
    assert set(CODES) <= set(COMMANDS)


#: A call of each command that gives a code other than 0 and 2 of its list.
NEGATIVE = {
    ("record", "3"): ["-o", "{tmp}/x", "--", sys.executable, "-S", "-c", "raise SystemExit(3)"],
    ("msr", "1"): ["IA32_LBR_CTL", "0x10"],
    ("run", "124"): ["{files}/machine.vm", "--limit", "1000"],
    ("run", "1"): ["{files}/machine.vm", "--limit", "1000", "--pause", "2000", "--save", "{tmp}/s"],
}


@pytest.mark.parametrize(("command", "code"), [*NEGATIVE])
def test_a_documented_code_is_what_comes(command, code, files, tmp_path):
    words = [word.format(tmp=tmp_path, files=files) for word in NEGATIVE[command, code]]
    done = subprocess.run([sys.executable, "-m", "pylbr", command, *words], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == int(code), done.stderr
    assert {"", code} & set(CODES[command])


def test_a_processor_has_one_name_in_every_command():
    having = set()
    for command in COMMANDS:
        for action in parser(command)._actions:
            names = set(action.option_strings)
            if action.help == argparse.SUPPRESS or not names & {"--cpu", "--model", "--processor"}:
                continue
            having.add(command)
            assert {"--cpu", "--model"} <= names and action.dest == "model", command
    assert having == {"replay", "run", "linux", "selftest", "msr", "cpuid"}


@pytest.mark.parametrize("command", ["msr", "cpuid"])
def test_both_names_do_the_same(command):
    by_cpu = call(command, "--cpu", "skylake")
    assert by_cpu[0] == 0 and by_cpu == call(command, "--model", "skylake") == call(
        command, "-m", "skylake") != call(command)


#: Commands that print tables, and one call for each table; what is not here prints none.
TABLES = {
    "report": [["{files}/x.perf.data", "--by", view]
               for view in ("edges", "functions", "history", "runs")],
    "inspect": [["{files}/x.perf.data"], [GZIP]], "doctor": [["{files}/x.perf.data"]],
    "arbitrate": [["--branches", "2000", "lease"]],
    "msr": [[], ["IA32_LBR_CTL"], ["IA32_LBR_CTL", "7"], ["IA32_LBR_CTL", "0x10"]],
    "cpuid": [[], ["0x1c"], ["--models"], ["--raw", "0xa"]],
}
#: Those whose tests of JSON are their own: they run for long, or need other programs.
OWN_TESTS = {"optimize": "tests/optimize/test_optimize.py", "verify": "tests/verify",
             "selftest": None, "bench": "tests"}
#: Those that print no table on standard output.
NONE = {"record", "replay", "convert", "merge", "run", "linux"}


def test_every_command_that_prints_a_table_is_here():
    assert set(TABLES) | set(OWN_TESTS) | NONE == set(COMMANDS)
    for command in COMMANDS:
        source = (ROOT / "pylbr" / "cli" / f"{command}.py").read_text()
        prints = re.search(r"print_table|print_text|print_with_legend", source)
        assert bool(prints) <= (command not in NONE), command
        if command in TABLES or prints:
            options = {name for action in parser(command)._actions
                       for name in action.option_strings}
            assert "--json" in options, command
    for command, test in OWN_TESTS.items():
        assert test is None or any(
            "--json" in path.read_text() for path in [*(ROOT / test).rglob("*.py"), ROOT / test]
            if path.is_file()), command


@pytest.mark.parametrize(("command", "words"), [
    (command, words) for command, calls in TABLES.items() for words in calls])
def test_json_has_the_numbers_of_the_table(command, words, files):
    words = [word.format(files=files) for word in words]
    code, plain, _ = call(command, *words)
    again, out, _ = call(command, *words, "--json")
    assert code == again and plain and not plain.startswith(("{", "["))
    found = json.loads(out)
    assert found
    if command == "msr" and not words:
        assert len(found) == len(plain.splitlines())
        assert [f"{row['msr']:X}H" for row in found] == [
            line.split()[0] for line in plain.splitlines()]
    if command == "msr" and words[1:] == ["0x10"]:
        assert found["fault"] and found["fault"] in plain and code == 1
    if command == "cpuid" and words == ["--models"]:
        assert [row["name"] for row in found] == [*MODELS, *FEATURE_SETS]
    if command == "cpuid" and words != ["--models"]:
        for leaf in found["leaves"]:
            assert f"{leaf['leaf']:#010x} {leaf['subleaf']:#x}: eax={leaf['eax']:08x}" in plain


def forms(kind: str) -> list[Format]:
    return [one for one in formats() if one.kind == kind and one.write is not None]


def test_suffixes_are_those_of_the_formats():
    """In every place that lists them."""
    traces = {suffix for one in forms("trace") for suffix in one.suffixes}
    stacks = {suffix for one in forms("stacks") for suffix in one.suffixes}
    partial = {suffix for suffix in traces if suffix.startswith(".champsimtrace")}
    assert len(partial) == 3
    assert set(TRACE_SUFFIXES) == traces - partial - {".csv", ".speedscope.json"}
    assert set(OTHER_FORMS) == (traces | stacks | {".fdata"}) - {".perf.data"}
    for command, kinds in (("convert", traces | stacks), ("replay", stacks)):
        assert kinds <= set(parser(command).epilog.split()), command


#: A call that writes {out}, and the suffixes that it takes.
WRITERS = {
    "record": (["record", "-o", "{out}", "--", "/bin/true"], None),
    "record --full": (["record", "--full", "-o", "{out}", "--", "/bin/true"], TRACE_SUFFIXES),
    "run": (["run", "{files}/machine.vm", "--limit", "1000", "--trace", "{out}"], TRACE_SUFFIXES),
    "replay": (["replay", GZIP, "-c", "20000", "-o", "{out}"], (".perf.data", ".perfscript")),
    "convert trace": (["convert", GZIP, "-o", "{out}"], (".lbrt", ".arrow")),
    "convert": (["convert", "{files}/x.perf.data", "-o", "{out}"], (".perfscript", ".csv")),
    "merge": (["merge", "{files}/x.perf.data", "-o", "{out}", "--binary", sys.executable], ()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_suffix_that_is_not_known_is_one_line(name, files, tmp_path):
    words, takes = WRITERS[name]
    for suffix in (".preagg", ".LBRT") if takes is None else (".xyz", ".perf"):
        out = tmp_path / f"new{suffix}"
        code, _, error = call(*(word.format(out=out, files=files) for word in words))
        assert code == 2 and error.count("\n") == 1 and str(out) in error, error
        assert not out.exists()


@pytest.mark.parametrize(("name", "suffix"), [
    (name, suffix) for name, (_, takes) in WRITERS.items() for suffix in takes or ()
    if not name.startswith("record")])
def test_suffixes_may_be_in_capitals(name, suffix, files, tmp_path):
    words = WRITERS[name][0]
    outs = [tmp_path / f"new{suffix}", tmp_path / f"NEW{suffix.upper()}"]
    for out in outs:
        code, _, error = call(*(word.format(out=out, files=files) for word in words))
        assert code in (0, 124), error
    assert outs[0].stat().st_size and outs[1].stat().st_size
    codes = [call("inspect", "--json", str(out)) for out in outs]
    assert json.loads(codes[0][1])["format"] == json.loads(codes[1][1])["format"] if (
        codes[0][0] == 0) else codes[0][0] == codes[1][0]


@pytest.mark.parametrize("option", [["-F", "1"], ["-c", str(10 ** 12)]])
def test_a_recording_without_samples_names_the_option_that_gives_some(option, tmp_path):
    """And that option does."""
    app = [sys.executable, "-S", "-c", "sum(i * i for i in range(300000))"]

    def record(*words):
        return subprocess.run([sys.executable, "-m", "pylbr", "record", "-o", tmp_path / "x",
                               *words, "--", *app], capture_output=True, text=True, cwd=ROOT)

    first = record(*option)
    if "native engine cannot" in first.stderr or "no qemu" in first.stderr:
        pytest.skip(first.stderr)
    assert first.returncode == 1, first.stderr
    advice = re.search(r"(-[Fc]) (\d+) gives", first.stderr)
    second = record(*advice.groups())
    assert second.returncode == 0 and re.search(r": [1-9][\d,]* samples", second.stderr), (
        first.stderr, second.stderr)
