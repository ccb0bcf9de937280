"""The option that names a processor model, the same in every command."""

from __future__ import annotations

import argparse

__all__ = ["add_cpu"]


def add_cpu(
    parser: argparse.ArgumentParser, text: str, default: str | None = None, letter: bool = True
) -> None:
    """``-m``, ``--cpu`` and, as it was called before, ``--model``; the value is `args.model`.

    Parameters
    ----------
    parser : ArgumentParser
    text : str
        What it is for, and its default.
    default : str, optional
    letter : bool
        False where ``-m`` is another option of perf's.
    """
    names = ["-m"] if letter else []
    parser.add_argument(*names, "--cpu", "--model", dest="model", metavar="MODEL", default=default,
                        help=text)
