"""Tables on terminals and in pipes, and the progress bar."""

import io
import re
import time

import pytest

from pylbr.cli import progress
from pylbr.tables import Table, ends, print_table

STYLE = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")
NAMES = Table(
    [("[bold]" + "a_long_name_" * 6 + "(file.c)", "1,234"), ("b\x1b[31m :smile:", "7")],
    ("function", "branches"), frozenset({1}), names=True)
PROSE = Table([("P1", "a record of the host is shown to a guest, " * 3), ("P\u4e2d", "none")],
              ("property", "meaning"), markdown=True)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_terminal(content, monkeypatch, columns):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    print_table(content, stream)
    return stream.getvalue()


def test_plain_text_is_whole_and_stable(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    print_table(NAMES, stream)
    name = NAMES.rows[0][0]
    assert stream.getvalue().splitlines() == [
        f"{'function':{len(name)}}  branches", f"{name}     1,234",
        f"{'b' + chr(92) + 'x1b[31m :smile:':{len(name)}}         7"]


def test_plain_markdown():
    head, rule, first, second = str(PROSE).splitlines()
    assert rule == "|" + "-" * 10 + "|" + "-" * (len(PROSE.rows[0][1]) + 2) + "|"
    assert first == f"| P1       | {PROSE.rows[0][1]} |"
    assert second.startswith("| P\u4e2d      | none ")  # a wide character takes two cells
    assert head.startswith("| property | meaning ")


@pytest.mark.parametrize("columns", [40, 64])
def test_a_terminal_shows_both_ends_of_names(monkeypatch, columns):
    lines = [STYLE.sub("", line) for line in on_terminal(NAMES, monkeypatch, columns).splitlines()]
    assert max(map(len, lines)) <= columns
    assert lines[1].startswith("[bold]a_lo") and "\u2026" in lines[1] and "(file.c)" in lines[1]
    assert lines[1].rstrip().endswith("1,234") and "b\\x1b[31m :smile:" in lines[2]


def test_a_terminal_wraps_prose(monkeypatch):
    text = STYLE.sub("", on_terminal(PROSE, monkeypatch, 40))
    assert max(map(len, text.splitlines())) <= 40
    assert text.count("guest,") == 3


def test_no_column_is_lost_where_there_is_no_room(monkeypatch):
    table = Table([("x" * 30, *("123,456,789",) * 6)], ("name", *"abcdef"),
                  frozenset(range(1, 7)), names=True)
    text = STYLE.sub("", on_terminal(table, monkeypatch, 40))
    assert text.count("123,456,789") == 6 and "\u2026" in text


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_colours_can_be_switched_off(monkeypatch, variable):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(variable, "dumb")
    stream = Terminal()
    print_table(NAMES, stream)
    assert not re.search("\x1b\\[[0-9;]*[34]8?[0-7]?[;m]", stream.getvalue())


@pytest.mark.parametrize("width", range(1, 9))
def test_ends_have_the_width(width):
    assert len(ends("abcdefghi", width)) == width
    assert ends("abc", 8)[:3] == "abc"


def test_the_bar_appears_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for kind, shown in ((Terminal, True), (io.StringIO, False)):
        stream = kind()
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr(progress, "_DELAY", 0.0)
        monkeypatch.setattr(progress, "_INTERVAL", 0.0)
        with progress.progress(1000, "branches", "a\x1b[31mb[x]") as bar:
            bar.update(250)
            bar.update(250)
        text = stream.getvalue()
        assert ("500 branches" in text and "50%" in STYLE.sub("", text)) == shown
        assert "[31mb[x]" not in text or "\\x1b[31mb[x]" in text
        assert bar.n == 500 and bool(text) == shown


def test_a_short_command_shows_no_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress.progress(10, "branches") as bar:
        bar.update(10)
    assert stream.getvalue() == ""


def test_a_thread_draws_the_bar_and_what_is_printed_stands_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_INTERVAL", 0.001)
    stream, printed = Terminal(), Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("sys.stdout", printed)
    count = iter(range(1, 1 << 30))
    with progress.progress(None, "instructions", "guest") as bar:
        screen = progress.Screen(bar)
        with progress.drawn_meanwhile(bar, lambda: next(count)):
            wait_until(lambda: "instructions/s" in stream.getvalue())
            screen(b"a")                        # half a line: no bar until it has ended
            before = stream.getvalue()
            assert before.endswith("\x1b[2K")   # the bar was taken away
            drawn = bar.n
            wait_until(lambda: bar.n > drawn + 3)
            assert stream.getvalue() == before and printed.getvalue() == "a"
            screen(b"\n")
            wait_until(lambda: len(stream.getvalue()) > len(before))
    assert printed.getvalue() == "a\n"


def wait_until(true):
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")
