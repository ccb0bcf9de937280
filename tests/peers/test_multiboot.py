"""The kernel that comes with the Multiboot specification boots and reads what we tell it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from peer_tools import need

from pylbr.cli import main

pytestmark = [pytest.mark.peer]

KERNEL = Path("/usr/lib/multiboot/examples/kernel")


def test_the_example_kernel(capfd: pytest.CaptureFixture[str]) -> None:
    need(KERNEL)
    assert main(["run", "--report", "--append", "hello world", str(KERNEL)]) == 0
    report = capfd.readouterr().err
    assert "nothing that could wake it" in report
    # It draws a line over the first letters.
    screen = report[report.index("screen:\n"):].replace("\\", "?")
    assert re.search(r"mem_lower = 639KB, mem_upper = 64448KB", screen.replace("m?m", "mem"))
    assert "line = kernel hello world" in screen
    assert screen.count("base_addr = 0x") == 3
    assert "Halted." in screen
    assert screen.rstrip().endswith("\n" + " " * 24 + "?")  # as told: 25 rows of text
