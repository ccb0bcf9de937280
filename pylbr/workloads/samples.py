"""Recorded traces of a million branches each, in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pylbr.errors import CommandError
from pylbr.trace import Trace
from pylbr.trace import open as open_trace

__all__ = ["NAMES", "recorded"]

_FOLDER: Final = Path(__file__).with_name("data")
#: Programs whose traces the package has.
NAMES: Final = tuple(sorted(path.stem for path in _FOLDER.glob("*.lbrt")))


def recorded(name: str) -> Trace:
    """A part of a real program's run, every branch of it; `metadata.provenance` has its origin.

    Raises
    ------
    CommandError
        There is none of this name.
    """
    if name not in NAMES:
        raise CommandError(f"{name}: no such workload; there are {', '.join(NAMES)}")
    return open_trace(_FOLDER / f"{name}.lbrt")
