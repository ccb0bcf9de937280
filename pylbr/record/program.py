"""What a command line runs: the file in PATH, a script's interpreter, and whether QEMU may."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pylbr.errors import CommandError
from pylbr.record.targets import TARGETS, X86_64, Target

__all__ = ["Program", "check_elf", "resolve", "target_of"]

_ELF_64: Final = b"\x7fELF\x02\x01"
_SCRIPT_LEVELS: Final = 5  # as the kernel
_MACHINES: Final = {3: "i386", 40: "Arm", 183: "AArch64", 243: "RISC-V", 21: "PowerPC", 22: "S/390"}


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Attributes
    ----------
    path : str
        The ELF file.
    arguments : tuple of str
        Its argv, the zeroth included.
    name : str
        That of its process: the last part of the path given to execve, a script's too.
    target : Target
        What it runs on.
    """

    path: str
    arguments: tuple[str, ...]
    name: str
    target: Target = X86_64


def target_of(command: Sequence[str]) -> Target:
    """What the program of a command line runs on; x86-64 if that cannot be determined."""
    try:
        return resolve(command, tuple(TARGETS.values())).target
    except CommandError:
        return X86_64


def resolve(command: Sequence[str], targets: Sequence[Target] = (X86_64,)) -> Program:
    """Find and check the program of a command line, as a shell and ``execve`` would.

    Parameters
    ----------
    command : sequence of str
    targets : sequence of Target
        Those whose programs can be recorded.

    Raises
    ------
    CommandError
        Exit code 127: not found; 126: found, but cannot be run or not recorded.
    """
    path = command[0] if "/" in command[0] else shutil.which(command[0])
    if path is None:
        raise CommandError(f"{command[0]}: not found in PATH", 127)
    arguments, name = list(command), os.path.basename(path)
    for _ in range(_SCRIPT_LEVELS):
        head = _head(path)
        if not head.startswith(b"#!"):
            return Program(path, tuple(arguments), name, check_elf(path, head, targets))
        words = head[2:].split(b"\n", 1)[0].strip(b" \t").split(None, 1)
        if not words:
            raise CommandError(f"{path}: no interpreter after #!", 126)
        interpreter = [os.fsdecode(word) for word in words]
        arguments = [*interpreter, path, *arguments[1:]]
        path = interpreter[0]
    raise CommandError(f"{command[0]}: more than {_SCRIPT_LEVELS} scripts in a row", 126)


def _head(path: str) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK):
            raise CommandError(f"{path}: not an executable file", 126)
        privileged = (status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()) or (
            status.st_mode & stat.S_ISGID and status.st_gid != os.getegid()
        )
        if privileged:
            raise CommandError(
                f"{path}: set-user-id programs lose their privilege when recorded; "
                "record a copy, or run as its owner", 126,
            )  # fmt: skip
        with open(path, "rb") as file:
            return file.read(256)
    except FileNotFoundError as error:
        raise CommandError(f"{path}: no such file", 127) from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", 126) from error


def check_elf(path: str, head: bytes, targets: Sequence[Target] = (X86_64,)) -> Target:
    """Check that a file with this head is a program for one of the targets; which one.

    Raises
    ------
    CommandError
    """
    if len(head) < 64 or not head.startswith(b"\x7fELF"):
        raise CommandError(f"{path}: neither an ELF program nor a script", 126)
    machine = int.from_bytes(head[18:20], "little")
    target = TARGETS.get(machine)
    if target is None or target not in targets or not head.startswith(_ELF_64):
        name = _MACHINES.get(machine, "x32 or i386" if machine == 62 else f"machine {machine}")
        if target is not None and target is not X86_64 and not head.startswith(_ELF_64):
            name += ", but not of 64 bits, little endian"
        *words, last = [one.title for one in targets]
        known = f"{', '.join(words)} and {last}" if words else last
        engine = " by this engine" if target is not None and len(targets) == 1 else ""
        raise CommandError(f"{path}: a program for {name}; only {known} can be recorded{engine}",
                           126)
    return target
