"""What goes to a terminal: through a pager, in colours, for its width."""

import ast
import fcntl
import importlib
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

import pylbr.perf._entries as some_module
from lbrcore import BRANCH_DTYPE
from pylbr.cli import COMMANDS, parser_of
from pylbr.files.elf import ElfImage
from pylbr.trace import Metadata, Module, Writer
from tests.terminals import written


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Branches in a library, enough for more rows than a screen has."""
    image = ElfImage(some_module.__file__)
    start = image.functions()["PyInit__entries"][0]
    table = branches_from(start)
    path = tmp_path_factory.mktemp("pager") / "x.arrow"
    modules = tuple(Module(image.path, s.address, s.size, s.offset) for s in image.segments)
    with Writer(path, Metadata(modules=modules)) as writer:
        writer.write(table)
    return path


def branches_from(start):
    table = np.zeros(60, BRANCH_DTYPE)
    table["from"], table["to"] = start + np.arange(60) * 2, start
    return table


def on_terminal(words, columns=100, **environment):
    """What a command writes to a terminal of so many columns, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items()
            if name not in ("NO_COLOR", "PAGER", "PYLBR_PAGER", "COLUMNS", "LINES", "LESS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", *map(str, words)], stdin=theirs, stdout=theirs,
        stderr=subprocess.PIPE, env={**kept, "TERM": "xterm", **environment})
    seen = written(ours, theirs)
    error = process.stderr.read().decode()
    process.stderr.close()
    return process.wait(), seen.decode().replace("\r\n", "\n"), error


def test_a_pager_gets_what_a_terminal_would(trace):
    words = ["report", trace, "-n", "50"]
    code, plain, error = on_terminal([*words, "--no-pager"])
    assert (code, error) == (0, "") and "\x1b[1m" in plain and plain.count("\n") > 50
    code, paged, _ = on_terminal(words, PYLBR_PAGER="sed s/^/:/", PAGER="false")
    assert code == 0 and paged.startswith(":")
    assert [line.removeprefix(":") for line in paged.splitlines()] == plain.splitlines()
    assert max(len(line) for line in paged.splitlines() if "\x1b" not in line) <= 101
    for pager in ("", "/no/such/pager"):
        assert on_terminal(words, PYLBR_PAGER=pager, PAGER="sed s/^/:/")[1] == plain


def test_colours_are_those_asked_for(trace):
    words = ["report", trace, "-n", "5"]
    assert "\x1b[" not in on_terminal([*words, "--no-pager", "--color", "never"])[1]
    for more, coloured in (["--color=always"], True), ([], False):
        out = subprocess.run([sys.executable, "-m", "pylbr", *map(str, words), *more],
                             capture_output=True, text=True, check=True).stdout
        assert ("\x1b[1m" in out) is coloured


def test_leaving_a_pager_early_is_no_error(trace):
    code, seen, error = on_terminal(["report", trace, "-n", "50"], PYLBR_PAGER="head -n 1")
    assert (code, error) == (0, "") and seen.count("\n") == 1


def called(command):
    """Names of the functions that a command's module calls."""
    module = importlib.import_module(f"pylbr.cli.{command}")
    return {node.func.id for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_every_command_with_a_table_has_a_pager_and_colours():
    printing = [name for name in COMMANDS if "print_table" in called(name)]
    assert len(printing) >= 7
    for name in printing:
        help_text = parser_of(name)._subparsers._group_actions[0].choices[name].format_help()
        assert "--no-pager" in help_text and "--color" in help_text, name


@pytest.mark.parametrize("words", [
    ["msr", "IA32_LBR_CTL", "7"], ["cpuid", "--models"], ["inspect", "TRACE"]], ids=" ".join)
def test_what_a_terminal_gets_is_what_it_can_show(words, trace):
    words = [str(trace) if word == "TRACE" else word for word in words]
    code, plain, error = on_terminal([*words, "--no-pager"], 70)
    assert (code, error) == (0, "")
    assert on_terminal(words, 70, PAGER="sed s/^/:/")[1].splitlines() == [
        f":{line}" for line in plain.splitlines()]
    assert "\x1b[3" not in on_terminal([*words, "--no-pager"], NO_COLOR="1")[1]
    narrow = subprocess.run([sys.executable, "-m", "pylbr", *words], capture_output=True, text=True,
                            check=True, env={**os.environ, "PAGER": "sed s/^/:/", "COLUMNS": "20"})
    assert "\x1b" not in narrow.stdout and not narrow.stdout.startswith(":")


def test_the_width_is_that_of_the_terminal_or_of_columns(trace):
    def widest(columns, **environment):
        text = on_terminal(["report", trace, "--no-pager", "--color=never"], columns,
                           **environment)[1]
        return max(len(line) for line in text.splitlines() if "PyInit" in line)

    assert widest(70) <= 70 < widest(200)
    assert widest(200, COLUMNS="70") <= 70


def test_a_message_in_the_middle_goes_to_the_pager_as_well(tmp_path, trace):
    script = tmp_path / "say.py"
    script.write_text(
        "import argparse, sys\n"
        "from pylbr.cli.pager import paged\n"
        "with paged(argparse.Namespace(color='auto', no_pager=False)):\n"
        "    print('before', file=sys.stderr)\n"
        "    print('first', flush=True)\n"
        "    print('note', file=sys.stderr)\n"
        "    print('last')\n"
        "print('after', file=sys.stderr)\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, script], stdin=theirs, stdout=theirs,
                               stderr=theirs, env={**os.environ, "PYLBR_PAGER": "sed s/^/:/"})
    os.close(theirs)
    assert process.wait() == 0
    seen = os.read(ours, 1 << 16).decode().split()
    os.close(ours)
    assert seen == ["before", ":first", ":note", ":last", "after"]
