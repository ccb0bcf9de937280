"""What the tests with real tools share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

LLVM = {version: Path(f"/usr/lib/llvm-{version}/bin") for version in (16, 19)}


def need(program: str | os.PathLike[str]) -> str:
    """Path of a tool; skips the test without it, or fails it where CI is set."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed; .ci/peers installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; its output as text."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300,
        errors="replace", **options,
    )  # fmt: skip


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory):
    """A static program with DWARF 4 and relocations, stepped through on the processor."""
    from peer_workload import compile_c, record

    need("gcc")
    place = tmp_path_factory.mktemp("workload")
    stepper = compile_c("step.c", place / "step")
    binary = compile_c(
        "workload.c", place / "workload", "-gdwarf-4", "-static", "-no-pie", "-nostdlib",
        "-ffreestanding", "-fno-stack-protector", "-fcf-protection=none",
        "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs", "-Wl,--build-id",
    )
    return record(binary, stepper, place / "rips")
