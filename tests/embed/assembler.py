"""GNU as, for tests that need a few instructions."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path


@functools.lru_cache(maxsize=64)
def assemble(source: str, origin: int) -> bytes:
    """Machine code of AT&T `source`, linked to run at `origin`."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "a.S").write_text(".globl _start\n_start:\n" + source + "\n")
        for command in (
            ["gcc", "-c", "-o", "a.o", "a.S"],
            ["ld", "-o", "a.elf", f"-Ttext={origin:#x}", "-e", "_start", "--no-warn-rwx-segments",
             "a.o"],
            ["objcopy", "-O", "binary", "-j", ".text", "a.elf", "a.bin"],
        ):
            subprocess.run(command, cwd=directory, check=True, timeout=60)
        return (directory / "a.bin").read_bytes()
