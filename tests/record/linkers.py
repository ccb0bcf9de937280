"""Programs of every linker, for the mappings that a recording lists."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.record.conftest import PROGRAMS, need

CLANG = ("clang-14", "-fuse-ld=lld")
#: How each is linked: compiler, and its flags.
LINKERS = {
    "gnu": ("gcc", "-pie", "-fPIE"),
    "gnu-no-pie": ("gcc", "-no-pie"),
    "gnu-static": ("gcc", "-static"),
    "gnu-static-pie": ("gcc", "-static-pie", "-fPIE"),
    "noseparate-code": ("gcc", "-pie", "-fPIE", "-Wl,-z,noseparate-code"),
    "gold": ("gcc", "-pie", "-fPIE", "-fuse-ld=gold"),
    "lld": (*CLANG, "-pie", "-fPIE"),
    "lld-no-pie": (*CLANG, "-no-pie"),
    "lld-static": (*CLANG, "-static"),
    "lld-static-pie": (*CLANG, "-static-pie", "-fPIE"),
    "mold": ("gcc", "-pie", "-fPIE", "-fuse-ld=mold"),
    "2-MiB": ("gcc", "-pie", "-fPIE", "-Wl,-z,max-page-size=0x200000"),
}
#: What each needs beside its compiler.
NEEDED = {"gold": "ld.gold", "mold": "mold", "lld": "ld.lld-14"}


def link(linker: str, output: Path, *arguments: object) -> Path:
    """Run the compiler of a linker; skips the test where either is missing."""
    compiler, *flags = LINKERS[linker]
    needed = (compiler, NEEDED.get(linker.split("-")[0], compiler))
    for program in needed:
        need(shutil.which(program), f"no {program}; .ci/peers installs it")
    subprocess.run([compiler, "-O1", *flags, "-o", output, *arguments, "-w"], check=True,
                   capture_output=True, timeout=120)
    return output


def library(linker: str, output: Path) -> Path:
    """A shared library by the same linker."""
    compiler, *flags = LINKERS[linker]
    flags = [flag for flag in flags if flag.startswith(("-fuse", "-Wl"))]
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", *flags, "-o", output,
                    PROGRAMS / "library.c"], check=True, timeout=120)
    return output
