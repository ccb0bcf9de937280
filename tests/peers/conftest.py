"""What the tests with real tools share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def workload(tmp_path_factory: pytest.TempPathFactory):
    """A static program with DWARF 4 and relocations, stepped through on the processor."""
    from peer_tools import need
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
