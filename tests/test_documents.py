"""Every command and code block of README and the pages: run, or at least taken by the parsers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pylbr.cli import COMMANDS, parser_of
from pylbr.errors import CommandError, LbrError
from pylbr.linux import debian
from pylbr.optimize.bolt import find_bolt
from pylbr.record.native.engine import usable

ROOT = Path(__file__).resolve().parent.parent
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True,
                        check=True).stdout.split()
PAGES = [name for name in LISTED if name.startswith("docs/") or "/" not in name]
FENCED = re.compile(r"^```(\S*)\n(.*?)^```", re.S | re.M)
#: Pages whose Python runs in a test of their own.
ELSEWHERE = {
    "README.md": "tests/cpu/test_docs.py", "docs/processor.md": "tests/cpu/test_docs.py",
    "docs/python.md": "tests/api/test_python_page.py",
    "docs/formats.md": "tests/trace/test_docs.py",
    "docs/trace-format.md": "tests/trace/test_docs.py",
    "CONTRIBUTING.md": "tests/test_recipes.py",
}


def python_of(name):
    return [code for language, code in FENCED.findall((ROOT / name).read_text())
            if language == "python"]


def a_trace(folder):
    subprocess.run([sys.executable, "-m", "pylbr", "convert",
                    ROOT / "examples" / "gzip.parquet", "-o", folder / "app.arrow"], check=True)


def of_replay(folder):
    """The trace that the page opens, and two stretches of branches."""
    from lbrcore import BRANCH_DTYPE, LbrConfig, LbrState

    a_trace(folder)
    lbr = LbrState(LbrConfig())
    lbr.ctl = 0x7F0007
    ab = np.zeros(9, BRANCH_DTYPE)
    ab["from"], ab["to"] = np.arange(9) + 0x1000, np.arange(9) + 0x2000
    return {"lbr": lbr, "a": ab[:4], "b": ab[4:], "ab": ab}


def of_profiles(folder):
    """Samples of that trace, and where a program lay."""
    from pylbr import trace
    from pylbr.sample import SampleSetup, sample

    a_trace(folder)
    setup = SampleSetup.of("branches:u", 10007, branches="any,u")
    with trace.open(folder / "app.arrow") as source:
        batches = list(sample(source, setup))
    return {"pid": 1, "start": 0x400000, "length": 4096, "file_offset": 0, "build_id": b"\1" * 20,
            "batches": batches}


def of_unicorn(folder):
    """A guest of three branches."""
    from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
    from unicorn.x86_const import UC_X86_REG_RSP

    from pylbr.cpu import Processor
    from pylbr.embed.unicorn import attach

    def loaded(*arguments):
        uc = Uc(*arguments)
        uc.mem_map(0x10000, 0x2000)
        uc.mem_write(0x10000, bytes.fromhex("e802000000eb01c3"))
        uc.reg_write(UC_X86_REG_RSP, 0x11800)
        return uc

    return {"Uc": loaded, "UC_ARCH_X86": UC_ARCH_X86, "UC_MODE_64": UC_MODE_64, "attach": attach,
            "Processor": Processor, "begin": 0x10000, "until": 0x10008}


#: Page -> what its code finds already there, as the words before it say.
GIVEN = {"docs/replay.md": of_replay, "docs/profiles.md": of_profiles,
         "docs/embedding-unicorn.md": of_unicorn}


def test_pages_with_a_test_of_their_own_are_named_there():
    for name, test in ELSEWHERE.items():
        assert Path(name).name in (ROOT / test).read_text(), name


@contextmanager
def ending_after(seconds):
    """An example without an end, such as a loop over an endless stream, is a failure."""
    def fail(*_):
        pytest.fail(f"an example has not ended after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_an_example_without_an_end_fails():
    with pytest.raises(pytest.fail.Exception, match="has not ended after 1 seconds"), \
            ending_after(1):
        while True:
            pass


@pytest.mark.parametrize("name", [name for name in PAGES
                                  if name not in ELSEWHERE and python_of(name)])
def test_the_python_of_a_page_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = GIVEN.get(name, lambda folder: {})(tmp_path)
    with ending_after(600):
        for code in python_of(name):
            exec(compile(code, name, "exec"), scope)
    if name == "docs/embedding-unicorn.md":
        assert "NEAR_REL_CALL" in capsys.readouterr().out


def command_lines(text):
    """Command lines in fenced and indented blocks, prompts and comments taken off."""
    blocks = [body for language, body in FENCED.findall(text)
              if language in ("", "sh", "console", "text", "bash")]
    text = FENCED.sub("", text)
    blocks += re.findall(r"(?:^    .*\n)+", text, re.M)
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if re.match(r"(\.venv/bin/)?pylbr [a-z]", line):
                yield line


def words_of(line):
    """The calls of pylbr in a line of a shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.commenters = "#"
    lexer.whitespace_split = True
    calls, call, skip = [], [], False
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            calls.append(call)
            call = []
        elif set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            call.append(word)
    return [call[1:] for call in calls if call and call[0].endswith("pylbr")]


def taken(words):
    """Why the parser does not take the words; empty if it does."""
    try:
        parser_of(words[0]).parse_args(words)
    except SystemExit:
        return f"{' '.join(words)}: the parser refuses it"
    except CommandError as error:
        return f"{' '.join(words)}: {error}"
    return ""


def test_every_command_line_is_one_that_pylbr_takes(capsys):
    lines = {(name, line) for name in PAGES for line in command_lines((ROOT / name).read_text())
             if name != "CHANGELOG.md"}
    assert len(lines) > 45
    wrong, used = [], set()
    for name, line in sorted(lines):
        for words in words_of(line):
            used.add(words[0])
            if why := taken(words):
                wrong.append(f"{name}: {why}; {capsys.readouterr().err[-200:]}")
    assert not wrong
    assert used == set(COMMANDS), "each command is shown somewhere"


def test_wrong_lines_are_found(capsys):
    assert taken(["report", "--no-such"]) and taken(["cpuid", "--cpus", "x", "1", "2", "3"])
    (words,) = words_of("pylbr report x.data --by functions  # the hot ones")
    assert words == ["report", "x.data", "--by", "functions"] and not taken(words)
    assert words_of("cat x | pylbr report - > y && pylbr msr") == [["report", "-"], ["msr"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_are_taken(command, capsys):
    (sub,) = [action.choices[command] for action in parser_of(command)._actions
              if isinstance(action.choices, dict)]
    lines = re.findall(r"^  (pylbr .*)", (sub.epilog or "").partition("examples:")[2], re.M)
    for line in lines:
        # What stands two blanks apart is an explanation.
        for words in words_of(re.split(r"\s{3,}", line)[0]):
            assert not taken(words), line


def shell_of(name):
    return [code for language, code in FENCED.findall((ROOT / name).read_text())
            if language == "sh"]


@pytest.mark.slow
@pytest.mark.peer
def test_the_first_start_of_the_readme_ends_in_an_optimised_program(tmp_path):
    """As it stands there, in a directory where `tests` is the checkout's."""
    try:
        usable()
        find_bolt(None)
    except LbrError as error:
        pytest.skip(str(error))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e", "-c", shell_of("README.md")[0]], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    assert "step+0x" in done.stdout and re.search(r"taken branches .* 0\.[0-9]+", done.stdout)
    assert os.access(tmp_path / "app.bolt", os.X_OK) and (tmp_path / "perf.data").exists()


@pytest.mark.slow
@pytest.mark.peer
def test_the_third_start_of_the_readme_shows_stacks_and_verdicts(tmp_path):
    """As it stands there; the second is of Python, and runs with README's other code."""
    pytest.importorskip("unicorn")
    try:
        debian.kernel()
    except LbrError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e", "-c", shell_of("README.md")[1]], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    stacks = re.findall(r"^ *0x.*$", done.stdout, re.M)
    assert len(stacks) == 3 and all(16 <= len(line.split()) <= 32 for line in stacks)
    assert "| request | 1 " in done.stdout and "violated" not in done.stdout
    assert re.search(r"^ok 4 request 4", done.stdout, re.M) and "not ok" not in done.stdout
