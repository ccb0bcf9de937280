"""Inputs of a command line: files, patterns, directories, URLs, and their weights."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pylbr.errors import CommandError, TraceError
from pylbr.profile.remote import is_url, urls_of
from pylbr.trace.formats import detect

__all__ = ["inputs_of", "weighted_inputs"]


def inputs_of(words: Sequence[str]) -> list[str]:
    """Files of the words of a command line: a pattern's in order, a directory's too.

    A directory that is a recording itself, as ``perf record --threads`` and Parquet make them, is
    one input; of any other, the files that begin with no dot.  URLs as `urls_of` has them.

    Raises
    ------
    TraceError
        A pattern or directory without files; a file that is named twice.
    """
    found: list[str] = []
    for word in words:
        if is_url(word):
            found += urls_of(word)
            continue
        names = [word]
        if not os.path.exists(word) and glob.has_magic(word):
            names = sorted(glob.glob(word))
            if not names:
                raise TraceError(word, "matches no file")
        for name in names:
            found += _files(name) if os.path.isdir(name) else [name]
    real = [name if is_url(name) else os.path.realpath(name) for name in found]
    twice = [name for name, count in Counter(real).items() if count > 1]
    if twice:
        raise TraceError(twice[0], "is named twice: its counts would be added twice; if they "
                         "shall, give it a weight (--weighted-input 2,FILE)")
    return found


def _files(name: str) -> list[str]:
    try:
        detect(name)
        return [name]
    except TraceError:
        pass
    files = sorted(str(path) for path in Path(name).iterdir()
                   if path.is_file() and not path.name.startswith("."))
    if not files:
        raise TraceError(name, "is a directory without files")
    return files


def weighted_inputs(words: Sequence[str], weighted: Sequence[str]) -> list[tuple[str, int]]:
    """(file, weight) of `words`, and of those of the form ``N,FILE``.

    Raises
    ------
    CommandError
        None is named; a weight that is none.
    TraceError
        As `inputs_of`.
    """
    pairs = [_weighted(word) for word in weighted]
    names = inputs_of([*words, *(name for _, name in pairs)])
    if not names:
        raise CommandError("no input is named")
    heavier = {name: weight for weight, word in pairs for name in inputs_of([word])}
    return [(name, heavier.get(name, 1)) for name in names]


def _weighted(word: str) -> tuple[int, str]:
    number, comma, name = word.partition(",")
    if not comma or not number.isdigit() or not int(number):
        raise CommandError(f"--weighted-input {word}: a whole number from 1 on, a comma, a file")
    return int(number), name
