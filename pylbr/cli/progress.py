"""What a command says besides its result: a progress bar, and notes on standard error."""

from __future__ import annotations

import sys

from tqdm import tqdm

from pylbr.printable import printable
from pylbr.trace import Stacks, Trace

__all__ = ["print_notes", "progress"]


def progress(total: int | None, unit: str, description: str = "") -> tqdm:
    """Bar that appears after one second; ``bar.update(n)`` moves it, ``with`` closes it.

    Silent when standard error is no terminal.
    """
    return tqdm(
        total=total, unit=unit, unit_scale=True, desc=printable(description), delay=1.0,
        disable=None, file=None, leave=False, dynamic_ncols=True,
    )


def print_notes(command: str, source: Trace | Stacks) -> None:
    """What a reader passed over, once the source has been read."""
    for note in getattr(source, "notes", ()):
        print(f"pylbr {command}: {printable(source.path)}: {printable(note)}", file=sys.stderr)
