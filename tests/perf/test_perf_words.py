"""Words that users of perf type are taken, or one line says what to do instead."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from pylbr import cli
from pylbr.cli import perf_words, record
from pylbr.errors import CommandError
from pylbr.record.recorded import period_of
from pylbr.record.wire_numbers import Counted
from tests.perf.perf_bytes import RECORDS, perf_file

PYLBR = [sys.executable, "-c", "import sys; from pylbr.cli import main; sys.exit(main())"]


@pytest.mark.parametrize(("words", "advice"), [
    ("record -g", "--call-graph lbr"), ("record --call-graph dwarf -- x", "--call-graph lbr"),
    ("record -a -- x", "one program is run"), ("replay -g x", "--call-graph lbr"),
    ("record -p 12 --full", "--full"), ("record -p 12 -c 9", "-c"),
    ("replay -F 99 x", "-c N"), ("replay -F max x", "-c N"), ("replay -p 12 x", "as a whole"),
    ("report -g x", "--by history"), ("report --sort symbol x", "--by VIEW"),
    ("report -F ip x", "--by VIEW"), ("convert -F ip x -o y.csv", "suffix of OUT"),
    ("report", "pylbr report FILE"), ("inspect", "pylbr inspect FILE"),
    ("convert -o x.csv", "pylbr convert FILE"), ("replay", "pylbr replay FILE"),
    ("record -e cpu/event=0x99/ -- x", "no such event"), ("record -e r20c4:k -- x", "modifiers"),
])
def test_a_word_that_is_answered(capsys, words, advice):
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert err.startswith(f"pylbr {words.split()[0]}: ") and advice in err


def test_a_word_that_nobody_types_is_answered_by_the_command(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", "--bogus", "x"])
    assert caught.value.code == 2
    assert "pylbr report: error: unrecognized arguments: --bogus" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "counted", "period"), [
    ("-F max", Counted.TIME, 10_000), ("-F 100", Counted.TIME, 10_000_000),
    ("-e r20c4 -c 7", Counted.TAKEN, 7), ("-e cpu/event=0xc4,umask=0x20/u -c 7", Counted.TAKEN, 7),
    ("-e cpu/event=0xc4/ -c 7", Counted.BRANCHES, 7), ("-e r3c -c 7", Counted.CYCLES, 7),
    ("-e rc0:u -N -m 8M -c 7", Counted.INSTRUCTIONS, 7),
    ("-e branches:u", Counted.BRANCHES, 100003),
])
def test_words_of_record_that_are_taken(words, counted, period):
    parser = record.argparse.ArgumentParser()
    record.configure(parser)
    args = parser.parse_args(words.split())
    assert period_of(args.freq, args.count, args.event) == (counted, period)


@pytest.mark.parametrize(("engine", "most"), [("native", 50_000), ("qemu", 100_000)])
def test_the_highest_frequency_is_the_engines(engine, most):
    parser = record.argparse.ArgumentParser()
    record.configure(parser)

    def period(frequency):
        return period_of(parser.parse_args(["-F", frequency]).freq, None, None, engine)

    assert period("max") == period(str(most)) == (Counted.TIME, 1_000_000_000 // most)
    for wrong in ("0", str(most + 1)):
        with pytest.raises(CommandError, match=f"-F {wrong}: 1 to {most} hertz"):
            period(wrong)


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "perf.data"
    path.write_bytes(perf_file(RECORDS))
    return path


@pytest.mark.parametrize("words", ["report {}", "report -i {} --stdio", "report --input={}"])
def test_the_input_is_named_either_way(recorded, capsys, words):
    assert cli.main(words.format(recorded).split()) == 0
    assert "2 branches in 2 samples" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["report -", "report -i -", "inspect -", "report --by runs -"])
@pytest.mark.parametrize("pipe", [True, False], ids=["pipe", "file"])
def test_standard_input(recorded, words, pipe):
    """Also read twice, which a pipe is not."""
    data = recorded.read_bytes()
    with open(recorded, "rb") as file:
        source = {"input": data} if pipe else {"stdin": file}
        done = subprocess.run([*PYLBR, *words.split()], capture_output=True, check=False, **source)
    assert done.returncode == 0, done.stderr
    named = subprocess.run(
        [*PYLBR, *words.replace(" -i -", "").removesuffix(" -").split(), str(recorded)],
        capture_output=True, check=True).stdout
    skipped = ("file", "bytes", "/", "-")
    assert [line for line in done.stdout.decode().splitlines() if not line.startswith(skipped)] == [
        line for line in named.decode().splitlines() if not line.startswith(skipped)]


def test_a_pipe_by_name(recorded, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([*PYLBR, "convert", str(fifo), "-o", str(tmp_path / "t.csv")]) as child:
        fifo.write_bytes(recorded.read_bytes())
    assert child.returncode == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + 2


def test_help_names_standard_input():
    parser = perf_words.argparse.ArgumentParser()
    perf_words.add_input(parser, "FILE", "file to read")
    text = io.StringIO()
    parser.print_help(text)
    assert "- is standard input" in text.getvalue()


@pytest.mark.parametrize(("name", "message"), [
    ("/dev/zero", "is no regular file and no pipe"), ("-", "standard input is no file and no pipe"),
])
def test_devices_are_no_input(name, message):
    with open("/dev/zero", "rb") as device:
        done = subprocess.run([*PYLBR, "inspect", name], stdin=device, capture_output=True,
                              check=False)
    assert done.returncode == 2 and message in done.stderr.decode()
