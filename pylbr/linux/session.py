"""One command in a guest: the machine booted, files in, the command run, files out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pylbr.embed.channel import Channel
from pylbr.embed.machine import Ending, Machine
from pylbr.linux.archive import Archive, read

__all__ = ["Result", "execute"]

_COMMAND = ".command"


@dataclass(frozen=True)
class Result:
    """What came of a command.

    Attributes
    ----------
    ending : Ending
        Of the machine; "exit" with the command's exit code if all went well.
    files : dict of str to bytes
        What the command wrote in its directory, by path.
    """

    ending: Ending
    files: dict[str, bytes]


def execute(
    machine: Machine, channel: Channel, command: str, files: Mapping[str, Path | bytes],
    limit: int | None = None,
) -> Result:
    """Run a command in a guest that is ready.

    Parameters
    ----------
    command : str
        For the guest's shell; empty: an interactive shell on the first serial port.
    files : mapping of str to Path or bytes
        By path in the command's directory.
    """
    channel.inbox = _pack(command, files)
    ending = machine.run(limit)
    return Result(ending, read(bytes(channel.outbox)) if ending.kind == "exit" else {})


def _pack(command: str, files: Mapping[str, Path | bytes]) -> bytes:
    """The archive for the guest's init; its times are older than what the command will write."""
    archive = Archive()
    for name, contents in files.items():
        if isinstance(contents, Path):
            archive.copy(name, contents)
        else:
            archive.file(name, contents)
    archive.file(_COMMAND, command.encode())
    return archive.pack()
