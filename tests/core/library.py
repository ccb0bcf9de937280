"""liblbrcore, generated and built once per run of the tests."""

import ctypes
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import once

ROOT = Path(__file__).resolve().parents[2]


def generate(directory: Path) -> Path:
    """lbrcore.c and lbrcore_inline.h, of the C that the build of the extensions left."""
    if os.environ.get("LBRCORE_TRACE") == "1":
        pytest.skip("traced C names Python: a build for coverage has no liblbrcore")
    script = ROOT / "lbrcore" / "library" / "amalgamate.py"
    subprocess.run([sys.executable, str(script), str(directory)], check=True, timeout=60)
    return directory


def install(build: Path, prefix: Path, **variables: str) -> Path:
    subprocess.run(
        ["make", "-s", "-C", str(ROOT / "lbrcore" / "library"), f"SOURCE={build}",
         f"PREFIX={prefix}", *(f"{name}={value}" for name, value in variables.items()), "install"],
        check=True, timeout=120)
    return prefix


@functools.cache
def prefix() -> Path:
    """Where the library is installed: include/, lib/."""
    return once.built("liblbrcore", lambda root: install(
        generate(root / "build"), root / "usr", CFLAGS="-O2 -Werror")) / "usr"


@functools.cache
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(prefix() / "lib" / "liblbrcore.so.1"))
