"""Answers of apt-cache, kept until its lists or settings change: it reads all lists each time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pylbr.errors import LbrError
from pylbr.files.json_text import decode_json
from pylbr.files.output import write_text
from pylbr.record.toolchain import cache_directory

__all__ = ["answer"]

#: What the answers follow from: lists, installed packages, settings.
SOURCES: Final = ("/var/lib/apt/lists", "/var/lib/dpkg/status", "/etc/apt")
_LARGEST: Final = 1 << 20


def answer(
    words: tuple[str, ...], ask: Callable[..., str], sources: tuple[str, ...] = SOURCES
) -> str:
    """What ``apt-cache`` prints for `words`.

    Parameters
    ----------
    words : tuple of str
    ask : callable
        Runs a command, whose words are its arguments, and returns what that prints.
    sources : tuple of str, optional
        Files and directories: apt is asked again when the time of one, or in one, has changed.
    """
    place = cache_directory() / "debian" / f"apt-{_digest(words)[:32]}.json"
    state = _digest([words, os.environ.get("APT_CONFIG"), _times(sources)])
    with (contextlib.suppress(OSError, ValueError),
          open(place, encoding="utf-8") as stream):
        kept = decode_json(stream.read(_LARGEST))
        if isinstance(kept, dict) and kept.get("state") == state and isinstance(
                found := kept.get("answer"), str):
            return found
    said = ask("apt-cache", *words)
    text = json.dumps({"state": state, "answer": said})
    if len(text) <= _LARGEST:
        with contextlib.suppress(OSError, LbrError):  # else the next one asks again
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_text(place, text)
    return said


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _times(sources: tuple[str, ...]) -> list[tuple[str, int]]:
    """All files and directories of `sources` and when each was changed, in nanoseconds."""
    found = {Path(source) for source in sources}
    for source in sources:
        for folder, _, names in os.walk(source):
            found.update(Path(folder, name) for name in (".", *names))
    return [(str(file), file.lstat().st_mtime_ns) for file in sorted(found)
            if os.path.lexists(file)]
