"""What goes to a terminal: through a pager, in colours, for its width."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

import pylbr.perf._entries as some_module
from lbrcore import BRANCH_DTYPE
from pylbr.files.elf import ElfImage
from pylbr.trace import Metadata, Module, Writer


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
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # EIO: the last writer has closed it
            break
        if not part:
            break
        seen += part
    os.close(ours)
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
