"""Builds the guests under tests/guests, with gcc, once a test run."""

from __future__ import annotations

import subprocess
from pathlib import Path

GUESTS = Path(__file__).resolve().parent.parent / "guests"
FLAGS = [
    "-O1", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-pic", "-no-pie", "-static",
    "-nostdlib", "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector",
    "-fcf-protection=none", "-Wl,-Ttext=0x101000", "-Wl,--build-id=none",
    "-Wl,--no-warn-rwx-segments",
]


def build(directory: Path, name: str, *flags: str, multiboot: bool = False) -> Path:
    """The guest `name` as an ELF executable in `directory`."""
    target = directory / ("-".join((name, *flags, "multiboot" * multiboot)).replace("=", "")
                          + ".elf")
    if not target.exists():
        entry = ["multiboot.S", "-Wl,--section-start=.multiboot=0x100000", "-Wl,-e,start32"]
        subprocess.run(
            ["gcc", *FLAGS, *flags, *(entry if multiboot else ()), "start.S", "kernel.c",
             f"{name}.c", "-o", str(target)],
            cwd=GUESTS, check=True, timeout=60,
        )
    return target
