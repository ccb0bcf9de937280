"""What is built once per run of the tests, whichever process needs it first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

#: Of the whole run, shared by the processes of pytest-xdist; `conftest.py` sets it.
directory: Path | None = None


def built(name: str, build: Callable[[Path], None]) -> Path:
    """The directory `name` of this run, filled by ``build(directory)`` if nothing has yet."""
    assert directory is not None, "a fixture of conftest.py sets it"
    target = directory / name
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / ".complete").exists():
            shutil.rmtree(target, ignore_errors=True)  # of a process whose build failed
            target.mkdir()
            build(target)
            (target / ".complete").touch()
    return target


def needs(*wanted: str) -> None:
    """Skip without these programs and files; where CI=true they may not be missing."""
    missing = [name for name in wanted if not (
        os.path.exists(name) if name.startswith("/") else shutil.which(name))]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"needs {', '.join(missing)}")
    assert not missing, f"missing: {', '.join(missing)}"
