"""The command line: one command a module, no logic of its own.

A command module has `HELP` (one line), ``configure(parser)`` and ``run(args) -> int``;
its name here is the command's name.  Modules are imported when their command is called,
so that ``pylbr --help`` stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

import pylbr
from pylbr.cli.exit_codes import listed
from pylbr.cli.process import Ended, ended_by_signals, flush, open_standard_streams
from pylbr.errors import CommandError, LbrError
from pylbr.extras import missing
from pylbr.printable import printable

__all__ = ["COMMANDS", "main", "parser_of"]

#: Command -> what it does, in the order of ``pylbr --help``.
COMMANDS: dict[str, str] = {
    "record": "run a program and record its branch stacks, as perf record -b does",
    "replay": "sample a trace as a processor with LBRs would: branch stacks, as perf record -b",
    "report": "show hot branches, functions, mispredicts, branch history",
    "convert": "turn a trace or a file of stacks into another format",
    "optimize": "record a program, optimise it with LLVM's BOLT, and measure what it gains",
    "merge": "add up recordings of one binary into one profile",
    "doctor": "explain why a profile of a recording would be empty or poor, and what helps",
    "inspect": "describe a trace or a branch-stack file",
    "run": "run a bare-metal kernel image on a machine with LBRs",
    "linux": "run a command in a Linux guest whose perf uses the LBRs of a modelled processor",
    "verify": "search every interleaving of host and guests for leaks and losses",
    "selftest": "run selftests of guests, saved states, MSRs and contention; print KTAP",
    "arbitrate": "compare the arbitration policies on one workload",
    "bench": "measure this pylbr beside alternatives on this machine",
    "msr": "show the registers of a processor, their fields, and what a value means",
    "cpuid": "show what CPUID answers on a processor",
}


_NEXT = """
start with:
  pylbr record -- PROGRAM ...            branch stacks of a program, in perf.data
  pylbr report                           where it branches
  pylbr convert perf.data -o app.preagg --binary PROGRAM     for perf2bolt -pa
  pylbr COMMAND --help                   everything about one command
"""


class _Version(argparse.Action):
    """Looks the version up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"pylbr {pylbr.__version__}")
        parser.exit()


def parser_of(*configured: str) -> argparse.ArgumentParser:
    """The parser of the command line.

    Parameters
    ----------
    *configured : str
        Commands whose modules are loaded and whose arguments it has; of others, the names alone.
    """
    parser = argparse.ArgumentParser(
        prog="pylbr", description="Last-branch records in software.", epilog=_NEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(
            name, help=summary, description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in configured:
            importlib.import_module(f"pylbr.cli.{name}").configure(sub)
            sub.epilog = f"{(sub.epilog or '').rstrip()}\n\n{listed(name)}".lstrip("\n")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        Exit code: 0 done, 1 the command's own negative answer, 2 a mistake in the call, the input
        or the output, 128 + n ended by signal n.
    """
    open_standard_streams()
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = next((a for a in arguments if not a.startswith("-")), "")
    name = f"pylbr {command}".rstrip()
    try:
        with ended_by_signals() as signals:
            try:
                code = _run(name, command, arguments)
            except SystemExit:  # argparse: --help, or a mistake in the call
                if trouble := flush():
                    print(f"{name}: {trouble}", file=sys.stderr)
                    return 2
                raise
            trouble = flush()
    except BrokenPipeError:
        # The reader of our output has gone: keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if trouble:
        print(f"{name}: {trouble}", file=sys.stderr)
        code = code or 2
    return 128 + signals[0] if signals and code else code  # whatever failed on its way out


def _shown(args: argparse.Namespace) -> int:
    """Run the command, and show what it prints as its options say."""
    run: Callable[[argparse.Namespace], int] = importlib.import_module(
        f"pylbr.cli.{args.command}").run
    if not hasattr(args, "no_pager"):
        return run(args)
    from pylbr.cli.pager import paged  # with what tables need

    with paged(args):
        return run(args)
    return 0  # its reader left the pager


def _run(name: str, command: str, arguments: Sequence[str]) -> int:
    """Run the command; what goes wrong is a line on standard error."""
    try:
        parser = parser_of(command)
        if not arguments:
            parser.print_help(sys.stderr)
            return 2
        args, unknown = parser.parse_known_args(arguments)
        if unknown:
            commands = next(action.choices for action in parser._actions
                            if isinstance(action, argparse._SubParsersAction))
            commands[args.command].error(
                f"unrecognized arguments: {' '.join(unknown)}; see {name} --help")
        return _shown(args)
    except CommandError as error:
        print(f"{name}: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        raise
    except (LbrError, OSError) as error:
        what = str(error)
        if isinstance(error, OSError):
            if error.filename is None:  # print's, or a pipe's
                what = flush() or f"reading or writing failed: {error.strerror}"
            elif isinstance(error.filename, str) and error.filename2 is None:
                what = f"{error.filename}: {error.strerror}"
        print(f"{name}: {printable(what)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        what = missing(error)
        if not what:
            raise
        print(f"{name}: {what}", file=sys.stderr)
        return 2
    except MemoryError as error:  # numpy's and Arrow's name the size
        what = printable(str(error).partition("\n")[0])
        print(f"{name}: not enough memory{what and f' ({what})'}; nothing was written",
              file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        what = f"ended by {error}" if isinstance(error, Ended) else "interrupted"
        print(f"{name}: {what}", file=sys.stderr)
        return 130
