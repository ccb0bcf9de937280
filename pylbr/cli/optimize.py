"""``pylbr optimize``: record, change the layout with BOLT or compile again, and measure."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pylbr.cli.pager import add_terminal_options
from pylbr.cli.progress import lasting, progress
from pylbr.errors import CommandError
from pylbr.files.output import AtomicFile
from pylbr.optimize import measure
from pylbr.optimize.bolt import Bolt, find_bolt
from pylbr.tables import Table, print_table

HELP = "record a program, optimise it with LLVM's BOLT or compiler, and measure what it gains"

EPILOG = """
The program runs several times: recorded, counted under QEMU, and timed before and after in turn.
Functions change places only in a program that was linked with -Wl,--emit-relocs.

examples:
  pylbr optimize -- ./app input.txt          writes ./app.bolt
  pylbr optimize -F 5000 --no-count -o fast -- ./app input.txt
  pylbr optimize --rebuild './build {profile} {output}' -- ./app   writes ./app.optimised
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.usage = "pylbr optimize [options] [--] PROGRAM [ARGUMENT ...]"
    parser.epilog = EPILOG
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="optimised program (default: PROGRAM.bolt, "
        "with --rebuild PROGRAM.optimised)")
    add("-F", "--freq", metavar="HZ", default="1000", help="stacks per second (default 1000)")
    add("--repeat", type=int, metavar="N", default=5, help="runs to time, of each (default 5)")
    add("--no-count", action="store_true", help="do not count taken branches under QEMU")
    add("--bolt", metavar="FOLDER", help="where perf2bolt and llvm-bolt are (default: the newest)")
    add("--rebuild", metavar="COMMAND", help="instead of BOLT: a shell command that compiles the "
        "program again, into {output}, with LLVM's sample profile {profile} (clang's "
        "-fprofile-sample-use, as of AutoFDO and llvm-profgen); the program needs -g")
    add("--keep", metavar="FOLDER",
        help="leave perf.data, the profile and the optimised program here")
    add("--json", action="store_true", help="print JSON")
    add_terminal_options(parser)
    add("command_line", nargs=argparse.REMAINDER, metavar="PROGRAM ...")


def run(args: argparse.Namespace) -> int:
    """Optimise; 1 if some step failed."""
    command = args.command_line[1:] if args.command_line[:1] == ["--"] else args.command_line
    if not command:
        raise CommandError("no program given: pylbr optimize [options] -- PROGRAM [ARGUMENT ...]")
    if args.repeat < 1:
        raise CommandError("--repeat: at least 1")
    program = shutil.which(command[0])
    if program is None:
        raise CommandError(f"{command[0]}: there is no such program")
    program = os.path.realpath(program)
    with open(program, "rb") as file:
        if file.read(4) != b"\x7fELF":
            raise CommandError(f"{program}: is a script; name the program that runs it")
    bolt = None
    if args.rebuild is None:
        bolt = find_bolt(args.bolt)
    elif args.bolt:
        raise CommandError("--bolt, --rebuild: give one of them")
    elif "{profile}" not in args.rebuild or "{output}" not in args.rebuild:
        raise CommandError("--rebuild: the command must name {profile} and {output}")
    output = args.output or f"{command[0]}.{'bolt' if bolt else 'optimised'}"
    if os.path.exists(output) and os.path.samefile(output, program):
        raise CommandError(f"-o {output}: is the program itself; name another file")
    with tempfile.TemporaryDirectory(prefix="pylbr-") as temporary, _aside(args.json):
        folder = args.keep or temporary
        os.makedirs(folder, exist_ok=True)
        data = _record(program, command, folder, args.freq)
        if bolt:
            _lay_out(bolt, program, data, folder, output)
        else:
            _rebuild(args.rebuild, program, data, folder, output)
        found = _measure(program, output, command, args)
    if args.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        _print(found)
    return 0


@contextmanager
def _aside(json_follows: bool) -> Iterator[None]:
    """Let the program print to standard error, where standard output is to be JSON alone."""
    if not json_follows:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _record(program: str, command: list[str], folder: str, frequency: str) -> str:
    _say("recording")
    data = os.path.join(folder, "perf.data")
    done = measure.commands("record", "-F", frequency, "-o", data, "--", program, *command[1:])
    if done.returncode:
        raise CommandError(f"the recorded program ended with {done.returncode}; nothing was "
                           "optimised", 1)
    return data


def _convert(data: str, profile: str, program: str, *options: str) -> None:
    if measure.commands("convert", data, "-o", profile, "--binary", program, *options).returncode:
        raise CommandError("the recording gave no profile", 1)


def _hand_out(made: str, program: str, output: str) -> None:
    with open(made, "rb") as source, AtomicFile(output) as file:
        shutil.copyfileobj(source, file.file)
    shutil.copymode(program, output)


def _lay_out(bolt: Bolt, program: str, data: str, folder: str, output: str) -> None:
    preagg, fdata, made = (os.path.join(folder, name)
                           for name in ("perf.preagg", "perf.fdata", "optimised"))
    _convert(data, preagg, program, "--preagg-form", bolt.preagg_form)
    _say("perf2bolt and llvm-bolt")
    with lasting("perf2bolt"):
        mismatching = bolt.profile(preagg, program, fdata)
    if mismatching:
        _say(f"{mismatching} traces do not fit the program's code; was it rebuilt meanwhile?")
    with lasting("llvm-bolt"):
        functions = bolt.lay_out(program, fdata, made)
    _hand_out(made, program, output)
    _say(f"BOLT {bolt.version} laid out {functions} functions with a profile: {output}")


def _rebuild(rebuild: str, program: str, data: str, folder: str, output: str) -> None:
    profile, made = (os.path.abspath(os.path.join(folder, name))
                     for name in ("perf.prof.txt", "optimised"))
    _convert(data, profile, program)
    words = rebuild.replace("{profile}", shlex.quote(profile)).replace(
        "{output}", shlex.quote(made))
    _say(words)
    code = subprocess.run(words, shell=True, stdin=subprocess.DEVNULL, check=False).returncode
    if code:
        raise CommandError(f"--rebuild: the command ended with {code}", 1)
    if not os.path.isfile(made):
        raise CommandError("--rebuild: the command wrote no {output}", 1)
    _hand_out(made, program, output)
    _say(f"compiled again with the profile: {output}")


def _measure(
    program: str, output: str, command: list[str], args: argparse.Namespace
) -> dict[str, Any]:
    before, after = [program, *command[1:]], [os.path.abspath(output), *command[1:]]
    number = 2 * args.repeat
    _say(f"timing {number} runs")
    with progress(number, "runs", "timing") as bar:
        runs = measure.compare(before, after, args.repeat, bar.update)
    if remark := measure.check(*runs):
        _say(remark)
    counts: tuple[int | None, ...] = (None, None)
    if not args.no_count:
        _say("counting taken branches under QEMU")
        counts = _count(before, after)
        if None in counts:
            _say("taken branches were not counted: that takes QEMU's user mode with plugins "
                 "(Debian 12: apt install qemu-user)")
    return {
        "program": program, "optimised": output, "runs": args.repeat,
        "taken_branches": counts,
        "cpu_seconds": [round(measure.seconds(one), 4) for one in runs],
        "bytes": [os.path.getsize(path) for path in (program, output)],
    }


def _count(*commands: list[str]) -> tuple[int | None, ...]:
    """Taken branches of each; the first shows how long the next will take."""
    counts: list[int | None] = []
    expected = None
    for number, words in enumerate(commands, 1):
        begun = time.monotonic()
        with lasting(f"counting, {number} of {len(commands)}", expected):
            counts.append(measure.taken_branches(words))
        expected = time.monotonic() - begun
    return tuple(counts)


def _print(found: dict[str, Any]) -> None:
    rows = []
    for name, label, form in (
        ("taken_branches", "taken branches", "{:,}"), ("cpu_seconds", "CPU seconds", "{:.3f}"),
        ("bytes", "bytes of the file", "{:,}"),
    ):
        before, after = found[name]
        known = before is not None and after is not None
        rows.append((
            label, *("n/a" if value is None else form.format(value) for value in (before, after)),
            f"{after / before:.3f}" if known and before else "n/a"))
    print_table(Table(rows, ("", "before", "after", "ratio"), frozenset({1, 2, 3})))


def _say(line: str) -> None:
    print(f"pylbr optimize: {line}", file=sys.stderr)
