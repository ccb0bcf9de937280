"""What is compiled from C for processes other than Python's, and where a wheel has it ready.

The build of a wheel runs this file by its path, before anything of pylbr can be imported, so it
needs nothing but the standard library::

    python pylbr/record/parts.py TARGET     # the folder pylbr of what is being built
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "BLOB", "FULL", "INIT", "LAUNCH", "PARTS", "PLUGIN", "READY", "Part", "compiler", "ready",
]

_PYLBR: Final = Path(__file__).resolve().parent.parent
_CORE: Final = _PYLBR.parent / "lbrcore" / "include"
_COMMON: Final = ("-O2", "-std=gnu11", "-fno-strict-aliasing")
#: Folder in pylbr that a wheel has, with a folder per digest.
READY: Final = "record/ready"


@dataclass(frozen=True)
class Part:
    """One file that the compiler makes.

    Attributes
    ----------
    name : str
    sources : sequence of Path
    include : sequence of Path
        Folders of headers.
    flags : tuple of str
        For the compiler; none names a path, so that `digest` is the same in every place.
    """

    name: str
    sources: Sequence[Path]
    include: Sequence[Path] = ()
    flags: tuple[str, ...] = ()

    def digest(self) -> str:
        """16 hexadecimal digits for all that the file is made from."""
        made_from = hashlib.sha256(" ".join((*_COMMON, *self.flags)).encode())
        headers = [one for folder in self.include for one in sorted(folder.glob("*.h"))]
        for path in (*self.sources, *headers):
            made_from.update(path.read_bytes())
        return made_from.hexdigest()[:16]

    def command(self, compiler: Sequence[str], output: Path, *flags: str) -> list[str]:
        """The command line of a compiler, with further flags."""
        return [*compiler, *_COMMON, *(f"-I{folder}" for folder in self.include), *self.flags,
                *flags, "-o", str(output), *map(str, self.sources)]


_NATIVE: Final = _PYLBR / "record" / "native"
_RECORDER: Final = (_PYLBR / "record" / "plugin", _PYLBR / "x86", _CORE)
#: What runs inside QEMU's process.
PLUGIN: Final = Part(
    "plugin.so", sorted((_PYLBR / "record" / "plugin").glob("*.c")), _RECORDER,
    ("-shared", "-fPIC", "-fvisibility=hidden"))
LAUNCH: Final = Part("launch", (_PYLBR / "record" / "launch.c",), _RECORDER)
_FREESTANDING: Final = (
    "-ffreestanding", "-fPIE", "-fvisibility=hidden", "-mgeneral-regs-only",
    "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables",
    "-mno-red-zone", "-fno-jump-tables", "-fno-tree-loop-distribute-patterns",
    "-fno-tree-vectorize", "-nostdlib", "-static-pie", "-Wl,-e,handlers", "-Wl,--build-id=none",
    "-Wl,-z,norelro", "-Wl,--no-dynamic-linker", "-Wl,-z,noexecstack", "-Wl,-z,noseparate-code")
#: What runs inside a recorded program's process: position-independent, of general registers only,
#: and without anything from a C library.
BLOB: Final = Part(
    "blob.elf",
    [_NATIVE / name for name in ("blob.c", "entry.S", "fault.c", "lane.c", "memory.c", "ranges.c",
                                 "ring.c", "sigaction.c", "translate.c", "window.c")],
    (_NATIVE, _PYLBR / "x86", _PYLBR, _CORE),
    _FREESTANDING)
#: The same for every branch of a program.
FULL: Final = Part(
    "full.elf",
    [_NATIVE / "full" / name for name in ("call.c", "entry.S", "flow.c", "layout.c", "log.c",
                                          "signal.c", "trace.c")] + [_NATIVE / "memory.c"],
    (_NATIVE / "full", _NATIVE, _PYLBR / "record" / "plugin", _PYLBR / "x86", _PYLBR, _CORE),
    _FREESTANDING)
#: The first process of the guest of ``pylbr linux``.
INIT: Final = Part("init", (_PYLBR / "linux" / "guest" / "init.c",), (), ("-static", "-s"))
PARTS: Final = (PLUGIN, LAUNCH, BLOB, FULL, INIT)


def compiler() -> list[str] | None:
    """The words that call the C compiler: ``$CC`` with its options, cc or gcc."""
    for words in (os.environ.get("CC", "cc").split(), ["gcc"]):
        if words and shutil.which(words[0]):
            return words
    return None


def ready(part: Part) -> Path | None:
    """The file as the wheel brought it; None where there is none, or the C differs."""
    path = _PYLBR / READY / part.digest() / part.name
    return path if path.is_file() and os.access(path, os.X_OK) else None


def main(target: Path) -> int:
    """Compile all parts into a copy of pylbr; 1 if one is left out."""
    found = compiler()
    if found is None or platform.machine() != "x86_64":
        print("the recorder is left out: it is compiled where it is used", file=sys.stderr)
        return 0
    missing = 0
    for part in PARTS:
        output = target / READY / part.digest() / part.name
        output.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(part.command(found, output), check=False)
        if done.returncode and "-static" in part.command(found, output):
            # $CC may link with an old C library, which a new libgcc does not fit; what is static
            # needs neither where it runs.
            done = subprocess.run(part.command(found[:1], output), check=False)
        if done.returncode:
            print(f"{part.name} is left out: it is compiled where it is used", file=sys.stderr)
            missing = 1
            shutil.rmtree(output.parent)
        else:
            output.chmod(0o755)
    return missing


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
