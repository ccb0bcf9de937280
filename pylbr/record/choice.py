"""Which engine records, where none is named."""

from __future__ import annotations

import os
from pathlib import Path

from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.record.engine import Engine, engine
from pylbr.record.targets import X86_64, Target

__all__ = ["choose", "process_of"]


def choose(
    name: str | None, needs: str, running: bool = False, target: Target = X86_64
) -> tuple[Engine, str]:
    """The engine of that name, or the one that suits.

    Parameters
    ----------
    name : str or None
    needs : str
        An option that asks for exact counts; empty: none does.
    running : bool
        A process that runs already is to be recorded.
    target : Target
        What the program runs on.

    Returns
    -------
    engine : Engine
    why : str
        Its name and why it was taken; empty where it was named, or an option left no choice.

    Raises
    ------
    CommandError
    UnsupportedFeature
        A running process, and the native engine cannot be used here.
    """
    if running and (needs or name not in (None, "native")):
        raise CommandError(
            f"{needs or '--engine ' + str(name)}: a running process is sampled by the native "
            "engine: -F HZ"
        )
    if name:
        return engine(name), ""
    if needs:
        return engine("qemu"), ""
    if target is not X86_64:
        return engine("qemu"), f"qemu: a program for {target.title}"
    from pylbr.record.native.engine import usable  # not before: it takes long to load

    try:
        timer = usable()
    except UnsupportedFeature as error:
        if running:
            raise
        return engine("qemu"), f"qemu, several times slower: {error}"
    return engine("native"), "native: full speed, stacks at ticks of " + (
        f"a timer, for {timer}" if timer else "CPU time")


def process_of(tid: int) -> int:
    """The process of a thread.

    Raises
    ------
    CommandError
    """
    try:
        text = Path(f"/proc/{tid}/status").read_text(errors="replace")
    except OSError as error:
        raise CommandError(f"thread {tid}: {os.strerror(error.errno or 0)}") from error
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Tgid:"))
