"""Every option that the installed perf knows is taken, or one line says what to do instead."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess

import pytest

from pylbr import cli
from pylbr.cli import perf_options

#: perf's command, ours, the table, and what our command cannot do without.
COMMANDS = {
    "record": ("record", perf_options.RECORD, ["true"]),
    "report": ("report", perf_options.REPORT, ["x"]),
    "script": ("convert", perf_options.SCRIPT, ["x", "-o", "x.csv"]),
}
_OPTION = re.compile(r"^    (?:(-\w)(?:, )?)?\s*(?:(--[\w-]+))?", re.M)


def parser_of(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"pylbr.cli.{command}").configure(parser)
    return parser


def usage(command):
    """Options as perf prints them, short and long."""
    done = subprocess.run(["perf", command, "-h"], capture_output=True, text=True, check=False)
    found = _OPTION.findall(done.stdout + done.stderr)
    return {name for pair in found for name in pair if name}


@pytest.mark.peer
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_perf_has_an_answer(command):
    names = usage(command)
    assert len(names) > 60 and {"-v", "--verbose"} <= names
    ours, _, _ = COMMANDS[command]
    known = {name for action in parser_of(ours)._actions for name in action.option_strings}
    assert not sorted(names - known)


@pytest.mark.parametrize(("command", "words"), [
    (command, words) for command, (_, table, _) in COMMANDS.items() for words in table])
def test_an_answer_is_one_line_or_none(command, words, capsys):
    ours, _, rest = COMMANDS[command]
    parser = parser_of(ours)
    by_name = {name: action for action in parser._actions for name in action.option_strings}
    for name in words.names.split():
        own = by_name[name].help is not argparse.SUPPRESS
        given = [name, "3"] if words.value else [name]
        if own:
            continue  # the command's own option, which its tests hold
        if not words.advice:
            parser.parse_args([*given, *rest])
            continue
        assert cli.main([ours, *given, *rest]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err == f"pylbr {ours}: {name}: {words.advice}\n"


def test_a_table_names_an_option_once():
    for _, table, _ in COMMANDS.values():
        names = " ".join(words.names for words in table).split()
        assert len(names) == len(set(names))
