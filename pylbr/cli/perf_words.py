"""Words that users of perf type: taken as they mean it, or answered with what to do instead."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from pylbr.errors import CommandError

__all__ = ["accept", "add_input", "named_input", "refuse"]


class _Refused(argparse.Action):
    """Reports what to do instead."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        self._advice = kwargs.pop("advice")
        super().__init__(option_strings, dest, **kwargs)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object,
        option_string: str | None = None,
    ) -> None:
        raise CommandError(f"{option_string}: {self._advice}")


def refuse(
    parser: argparse.ArgumentParser, *words: str, advice: str, value: bool = False
) -> None:
    """Answer `words`, which take a value or none, with `advice`."""
    parser.add_argument(
        *words, action=_Refused, nargs="?" if value else 0, advice=advice, dest=argparse.SUPPRESS,
        help=argparse.SUPPRESS)


def accept(parser: argparse.ArgumentParser, *words: str, value: bool = False) -> None:
    """Take `words` that have nothing to act on here, as perf's buffers and its cache."""
    kind: dict[str, Any] = {"metavar": "VALUE"} if value else {"action": "store_true"}
    parser.add_argument(*words, help=argparse.SUPPRESS, dest=argparse.SUPPRESS, **kind)


def add_input(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """The file to read, as an argument or as perf's ``-i FILE``; ``-`` is standard input."""
    parser.set_defaults(input=None)
    parser.add_argument("input", metavar=metavar, nargs="?", default=argparse.SUPPRESS,
                        help=f"{text}; - is standard input")
    parser.add_argument("-i", "--input", metavar=metavar, dest="input",
                        default=argparse.SUPPRESS, help=f"the same as {metavar}")


def named_input(args: argparse.Namespace, default: str = "") -> str:
    """The file to read; `default` if none is named and it is there.

    Raises
    ------
    CommandError
        None was named.
    """
    if args.input is None and default and os.path.exists(default):
        return default
    if args.input is None:
        raise CommandError(f"no file given: pylbr {args.command} FILE")
    return args.input
