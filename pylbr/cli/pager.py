"""Output through a pager, in the colours that were asked for, as git has it."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from pylbr import tables

__all__ = ["add_terminal_options", "paged"]

WHEN: Final = ("auto", "always", "never")


def add_terminal_options(parser: argparse.ArgumentParser) -> None:
    """``--color`` and ``--no-pager``."""
    parser.add_argument("--color", "--colour", choices=WHEN, default="auto", metavar="WHEN",
                        help="auto (on a terminal, unless NO_COLOR is set), always, never")
    parser.add_argument("--no-pager", action="store_true",
                        help="print past the end of the screen; else PYLBR_PAGER, PAGER or less "
                        "shows what goes to a terminal")


def _command() -> list[str]:
    """The pager; empty if there is none to be used."""
    for name in ("PYLBR_PAGER", "PAGER"):
        if name in os.environ:
            try:
                words = shlex.split(os.environ[name])
            except ValueError:
                words = []
            return [] if words == ["cat"] else words
    return ["less"]


@contextlib.contextmanager
def paged(args: argparse.Namespace) -> Iterator[None]:
    """Send standard output through a pager meanwhile, if it is a terminal.

    A pager that cannot be started is done without; one that is left early ends the output.
    """
    on_terminal = sys.stdout.isatty()
    columns = tables.terminal_width() if on_terminal else 0
    with tables.shown(colour={"always": True, "never": False}.get(args.color)):
        words = _command() if on_terminal and os.isatty(1) and not args.no_pager else []
        pager = _start(words) if words else None
        if pager is None or pager.stdin is None:
            yield
            return
        before = sys.stdout
        sys.stdout = io.TextIOWrapper(pager.stdin, before.encoding, before.errors)
        try:
            with tables.shown(colour=args.color != "never" and (
                    None if args.color == "auto" else True), width=columns):
                yield
                sys.stdout.flush()
        except BrokenPipeError:
            pass  # the reader has seen enough
        finally:
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.close()
            sys.stdout = before
            pager.wait()


def _start(words: list[str]) -> subprocess.Popen[bytes] | None:
    environment = {"LESS": "FRX", "LV": "-c", **os.environ}
    try:
        return subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)
    except OSError:
        return None
