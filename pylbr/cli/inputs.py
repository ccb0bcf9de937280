"""Inputs of the commands that take any number of them."""

from __future__ import annotations

import argparse
import os

from pylbr.cli.perf_words import named_input
from pylbr.profile.inputs import weighted_inputs

__all__ = ["absolute", "add_inputs", "named_inputs"]


def add_inputs(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """Files as arguments or as perf's ``-i FILE``, and those with a weight."""
    parser.add_argument("inputs", metavar=metavar, nargs="*",
                        help=f"{text}: file, pattern, directory or URL; - is standard input")
    parser.add_argument("-i", "--input", metavar=metavar, dest="inputs_more", action="append",
                        default=[], help=f"the same as {metavar}")
    parser.add_argument("--weighted-input", metavar="N,FILE", action="append", default=[],
                        help="an input whose counts are multiplied by N")


def named_inputs(args: argparse.Namespace, default: str = "") -> list[tuple[str, int]]:
    """(file, weight) of all that is named; `default` if nothing is and it is there.

    Raises
    ------
    CommandError
        Nothing was named.
    TraceError
        A pattern or directory without files; a file that is named twice.
    """
    words = [*args.inputs, *args.inputs_more]
    if not words and not args.weighted_input:
        args.input = None
        words = [named_input(args, default)]
    return weighted_inputs(words, args.weighted_input)


def absolute(name: str) -> str:
    """The name of an input that means the same in a worker with another directory."""
    return os.path.abspath(name) if os.path.exists(name) else name
