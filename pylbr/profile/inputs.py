"""Inputs of a command line: files, patterns, directories, URLs, and their weights."""

from __future__ import annotations

import glob
import os
import zlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

from pylbr.errors import CommandError, TraceError
from pylbr.profile.remote import digest_of_url, is_url, urls_of
from pylbr.trace.formats import detect

__all__ = ["inputs_of", "weighted_inputs"]

_BLOCK: Final = 1 << 20
_EDGE: Final = 1 << 12


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
        As `inputs_of`; two inputs with the same bytes.
    """
    pairs = [_weighted(word) for word in weighted]
    names = inputs_of([*words, *(name for _, name in pairs)])
    if not names:
        raise CommandError("no input is named")
    _refuse_copies(names)
    heavier = {name: weight for weight, word in pairs for name in inputs_of([word])}
    return [(name, heavier.get(name, 1)) for name in names]


def _weighted(word: str) -> tuple[int, str]:
    number, comma, name = word.partition(",")
    if not comma or not number.isdigit() or not int(number):
        raise CommandError(f"--weighted-input {word}: a whole number from 1 on, a comma, a file")
    return int(number), name


def _refuse_copies(names: Sequence[str]) -> None:
    """One recording under two names would be added twice.

    Files of one size that begin and end alike are compared byte by byte, URLs by the MD5 that an
    object store reports.
    """
    alike: dict[Hashable, list[str]] = {}
    for name in names:
        key = _outline(name) if len(names) > 1 else None
        if key is not None:
            alike.setdefault(key, []).append(name)
    for group in alike.values():
        for one, other in combinations(group, 2):
            if is_url(one) or _same_bytes(one, other):
                raise TraceError(other, f"holds the same bytes as {one}: its counts would be added "
                                 "twice; leave one out, or, if they shall, give one of them a "
                                 "weight (--weighted-input 2,FILE)")


def _outline(name: str) -> Hashable | None:
    """What is equal for all copies of an input; None: nothing is known, or it is no file."""
    if is_url(name):
        return digest_of_url(name)
    if os.path.isdir(name):
        return tuple(_members(name))
    if not os.path.isfile(name) or not os.path.getsize(name):
        return None
    with open(name, "rb") as file:
        first = file.read(_EDGE)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _EDGE, 0))
        return size, zlib.crc32(first), zlib.crc32(file.read(_EDGE))


def _members(name: str) -> Iterator[tuple[str, int]]:
    """Files of a directory that is one input, with their sizes."""
    for path in sorted(Path(name).rglob("*")):
        if path.is_file():
            yield str(path.relative_to(name)), path.stat().st_size


def _same_bytes(one: str, other: str) -> bool:
    if os.path.isdir(one):
        return all(_same_bytes(os.path.join(one, name), os.path.join(other, name))
                   for name, _ in _members(one))
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            block = first.read(_BLOCK)
            if block != second.read(_BLOCK):
                return False
            if not block:
                return True
