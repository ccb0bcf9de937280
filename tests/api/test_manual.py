"""Man pages and shell completions: made of the parsers, and taken by groff and bash."""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pylbr.arch import MODELS
from pylbr.cli import COMMANDS, parser_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    for name in ("shtab", "argparse_manpage"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("manual")
    subprocess.run([sys.executable, ROOT / "tools" / "manual.py", folder], check=True, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def parsers():
    (action,) = (action for action in parser_of(*COMMANDS)._actions
                 if isinstance(action, argparse._SubParsersAction))
    return action.choices


def shown(page):
    """A man page as a reader sees it, without breaks of lines."""
    if not shutil.which("groff"):
        pytest.skip("no groff")
    done = subprocess.run(["groff", "-man", "-Tascii", "-P-cbou", "-rHY=0", "-rLL=2000n", "-ww",
                           page], capture_output=True, text=True, check=True)
    assert done.stderr == "", page
    return " ".join(done.stdout.split())


def test_every_command_has_a_man_page(made, parsers):
    assert {page.stem for page in (made / "man").iterdir()} == {
        "pylbr", *(f"pylbr-{name}" for name in COMMANDS)}
    whole = shown(made / "man" / "pylbr.1")
    for name, summary in COMMANDS.items():
        assert summary in whole and f"pylbr-{name}(1)" in whole
    assert "EXIT STATUS" in whole and "128+N ended by signal N" in whole


@pytest.mark.parametrize("name", COMMANDS)
def test_a_man_page_has_all_that_help_has(made, parsers, name):
    text = shown(made / "man" / f"pylbr-{name}.1")
    assert text.startswith(f"PYLBR-{name.upper()}(1) ")
    assert f"pylbr-{name} - {COMMANDS[name]}" in text and f"SYNOPSIS pylbr {name} " in text
    for action in parsers[name]._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        assert all(option in text for option in action.option_strings)
        said = parsers[name]._get_formatter()._expand_help(action) if action.help else ""
        assert re.sub(r"\s", "", said) in re.sub(r"\s", "", text), action
    notes = parsers[name].epilog or ""
    assert " ".join(notes.split()) in text


def completed(made, *words, cwd):
    """What bash offers for the last of the words."""
    if not shutil.which("bash"):
        pytest.skip("no bash")
    script = (f"set -e; source {made}/completions/pylbr.bash; COMP_WORDS=(\"$@\"); "
              "COMP_CWORD=$(($# - 1)); _shtab_pylbr; printf '%s\\n' \"${COMPREPLY[@]}\"")
    done = subprocess.run(["bash", "--norc", "-c", script, "bash", "pylbr", *words],
                          capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(made, tmp_path):
    (tmp_path / "some.perf.data").touch()
    (tmp_path / "folder").mkdir()
    assert set(completed(made, "", cwd=tmp_path)) >= set(COMMANDS)
    assert completed(made, "repo", cwd=tmp_path) == ["report"]
    assert completed(made, "report", "--b", cwd=tmp_path) == ["--by", "--branch-history"]
    assert completed(made, "report", "--by", "mis", cwd=tmp_path) == ["mispredicts"]
    assert completed(made, "report", "so", cwd=tmp_path) == ["some.perf.data"]
    assert completed(made, "convert", "-o", "so", cwd=tmp_path) == ["some.perf.data"]
    assert completed(made, "optimize", "--keep", "f", cwd=tmp_path) == ["folder"]
    for command in ("replay", "run", "linux", "msr", "cpuid"):
        assert completed(made, command, "--cpu", "s", cwd=tmp_path) == [
            name for name in MODELS if name.startswith("s")]
    assert "--call-graph" not in completed(made, "report", "--c", cwd=tmp_path), "it is refused"


def test_other_shells_have_a_completion_that_names_every_command(made):
    for name in ("_pylbr", "pylbr.fish"):
        text = (made / "completions" / name).read_text()
        assert all(command in text for command in COMMANDS)
    assert (made / "completions" / "_pylbr").read_text().startswith("#compdef pylbr\n")


@pytest.mark.parametrize(("shell", "name"), [("zsh", "_pylbr"), ("fish", "pylbr.fish")])
def test_other_shells_read_it(made, shell, name):
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    subprocess.run([shell, "-n", made / "completions" / name], check=True)
