"""Programs that guests record."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["build"]


def build(name: str, folder: Path, *options: str) -> Path:
    """A program of this directory, linked statically at a fixed address."""
    target = folder / name
    subprocess.run(["gcc", "-O1", "-g", "-static", "-no-pie", *options, "-o", str(target),
                    str(Path(__file__).with_name(name + ".c"))], check=True, timeout=60)
    return target
