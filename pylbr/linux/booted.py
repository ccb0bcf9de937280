"""A guest that waits for work: booted, or taken out of the cache where it was saved booted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pylbr.embed.channel import Channel
from pylbr.embed.contention import Contention
from pylbr.embed.machine import MIB, Ending, Machine
from pylbr.embed.multiprocessor import Multiprocessor
from pylbr.embed.savefile import restore, save
from pylbr.embed.time_limit import time_limit
from pylbr.errors import LbrError, StateError
from pylbr.linux.boot import boot
from pylbr.linux.console import Console
from pylbr.linux.kernel import load
from pylbr.record.toolchain import cache_directory

__all__ = ["COMMAND_LINE", "Guest", "NotBooted", "booted"]

#: Of the kernel: a console; no counter of the PMU for the watchdog; no tests of ciphers, which take
#: twice the instructions of all else.
COMMAND_LINE = "console=ttyS0 nmi_watchdog=0 cryptomgr.notests"
Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class Guest:
    """What to boot.

    Attributes
    ----------
    kernel : Path
    initrd : bytes
        With the init of `pylbr.linux.system`.
    model : str
    memory : int
        MiB.
    append : str
        After `COMMAND_LINE`.
    seed : int or None
        Of the machine; such a guest is not kept, as each seed would have one of its own.
    processors : int
        A guest with more than one is not kept.
    """

    kernel: Path
    initrd: bytes
    model: str = "sapphire-rapids"
    memory: int = 512
    append: str = ""
    seed: int | None = None
    processors: int = 1

    @property
    def saved(self) -> Path:
        """Where it is kept when it has booted."""
        digest = hashlib.sha256(repr((
            version("pylbr"), self.model, self.memory, self.append, COMMAND_LINE)).encode())
        digest.update(hashlib.sha256(self.kernel.read_bytes()).digest())
        digest.update(hashlib.sha256(self.initrd).digest())
        return cache_directory() / "linux" / f"{digest.hexdigest()[:24]}.vm"


class NotBooted(LbrError):
    """The guest ended before its init waited for work.

    Attributes
    ----------
    machine : Machine
    ending : Ending
    """

    def __init__(self, machine: Machine, ending: Ending) -> None:
        self.machine, self.ending = machine, ending
        super().__init__(f"the guest did not come up: {ending.reason}")


def booted(
    guest: Guest, console: Console, output: Sink, *, limit: int | None = None,
    seconds: float | None = None, contention: Contention | None = None, fresh: bool = False,
) -> tuple[Machine, Channel]:
    """A machine whose guest waits for work, and its channel.

    Parameters
    ----------
    console : Console
        Takes the first serial port.
    output : callable
        Takes the second, which is the command's standard output.
    limit, seconds : optional
        Instructions, and seconds of the host, that booting may take.
    contention : Contention, optional
        Such a guest is not kept.
    fresh : bool
        Boot, whatever the cache has.

    Raises
    ------
    NotBooted
        A panic, a limit, or anything else than the init.
    ImageError, ConfigurationError
        The kernel or initrd cannot be booted on this machine.
    """
    kept = guest.saved
    keep = contention is None and guest.seed is None and guest.processors == 1
    if not fresh and keep and kept.is_file():
        with suppress(StateError):  # of another version, or damaged: boot again
            machine = restore(kept, console=console, output=output)
            console.watch(machine)
            return machine, Channel(machine)
    machine = _machine(guest, console, output, contention)
    console.watch(machine)
    channel = Channel(machine)
    boot(machine, load(guest.kernel), guest.initrd, f"{COMMAND_LINE} {guest.append}".strip())
    with time_limit(machine, seconds):
        ending = machine.run(limit)
    if ending.kind != "ready":
        raise NotBooted(machine, ending)
    if keep:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        save(machine, kept)
    return machine, channel


def _machine(
    guest: Guest, console: Console, output: Sink, contention: Contention | None
) -> Machine:
    memory = guest.memory * MIB
    if guest.processors == 1:
        return Machine(guest.model, memory=memory, console=console, output=output,
                       contention=contention, seed=guest.seed)
    return Multiprocessor(guest.model, processors=guest.processors, memory=memory,
                          console=console, output=output, contention=contention,
                          seed=guest.seed)
