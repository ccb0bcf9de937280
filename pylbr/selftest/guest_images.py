"""The guests of this package as ELF executables."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pylbr.arch import bits
from pylbr.errors import ConfigurationError

__all__ = ["FLAGS", "GUESTS", "build"]

GUESTS = Path(__file__).resolve().parent / "guests"
#: Of gcc, for every guest.
FLAGS = (
    "-O1", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-pic", "-no-pie", "-static",
    "-nostdlib", "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector",
    "-fcf-protection=none", "-Wl,-Ttext=0x101000", "-Wl,--build-id=none",
    "-Wl,--no-warn-rwx-segments",
    # Registers have one definition.
    *(f"-D{name}={getattr(bits, name):#x}u" for name in (
        "IA32_DEBUGCTL", "IA32_LBR_CTL", "IA32_LBR_DEPTH", "IA32_XSS", "IA32_LBR_0_INFO",
        "IA32_LBR_0_FROM_IP", "IA32_LBR_0_TO_IP", "CTL_LBREN")),
)


def build(
    directory: Path, name: str, *flags: str, multiboot: bool = False, source: Path | None = None,
) -> Path:
    """The guest `name` as an ELF executable in `directory`, unless it is there.

    Parameters
    ----------
    flags : str
        More flags of gcc.
    multiboot : bool
        With a multiboot header, to be started in 32-bit protected mode.
    source : Path, optional
        The C file, instead of the one of that name in `GUESTS`.

    Raises
    ------
    ConfigurationError
        There is no gcc, or it fails.
    """
    words = filter(None, (name, *flags, "multiboot" * multiboot))
    target = directory / ("-".join(words).replace("=", "") + ".elf")
    if target.exists():
        return target
    if shutil.which("gcc") is None:
        raise ConfigurationError("gcc is not installed; it builds the guests")
    entry = ["multiboot.S", "-Wl,--section-start=.multiboot=0x100000", "-Wl,-e,start32"]
    done = subprocess.run(
        ["gcc", *FLAGS, *flags, *(entry if multiboot else ()), f"-I{GUESTS}", "start.S", "kernel.c",
         str(source.resolve() if source else f"{name}.c"), "-o", str(target.resolve())],
        cwd=GUESTS, capture_output=True, text=True, timeout=60)
    if done.returncode:
        line = next((line for line in done.stderr.splitlines() if "error" in line), "gcc failed")
        raise ConfigurationError(f"guest {name}: {line}")
    return target
