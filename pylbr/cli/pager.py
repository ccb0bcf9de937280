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
from typing import TYPE_CHECKING, Final

from pylbr import tables

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

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


class _Pager(io.RawIOBase):
    """The standard input of a pager, which starts when something is to be shown.

    What lasts before that may draw a progress bar; what is written to standard error after it,
    if that is the terminal, goes to the pager too.  A pager that cannot be started is done
    without.
    """

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Write on, as to a pipe."""
        if self._words:
            self._process = _start(self._words)
            self._words = []
            if self._process is not None and sys.stderr.isatty():
                sys.stderr = sys.stdout
        return os.write(self._target(), data)

    def _target(self) -> int:
        if self._process is None or self._process.stdin is None:
            return 1
        return self._process.stdin.fileno()

    def close(self) -> None:
        """End its input, and wait until its reader has left it."""
        super().close()
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()


@contextlib.contextmanager
def paged(args: argparse.Namespace) -> Iterator[None]:
    """Send standard output through a pager meanwhile, if it is a terminal.

    A pager that is left early ends the output.
    """
    on_terminal = sys.stdout.isatty()
    columns = tables.terminal_width() if on_terminal else 0
    with tables.shown(colour={"always": True, "never": False}.get(args.color)):
        words = _command() if on_terminal and os.isatty(1) and not args.no_pager else []
        if not words:
            yield
            return
        before, errors = sys.stdout, sys.stderr
        before.flush()
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Pager(words)), before.encoding,
                                      before.errors)
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
            sys.stdout, sys.stderr = before, errors


def _start(words: list[str]) -> subprocess.Popen[bytes] | None:
    environment = {"LESS": "FRX", "LV": "-c", **os.environ}
    try:
        return subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)
    except OSError:
        return None
