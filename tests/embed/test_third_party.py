"""Test images that others wrote, on machines that have them: they are not ours to ship.

``PYLBR_KVM_UNIT_TESTS`` names a built tree of kvm-unit-tests (``./configure && make``); what that
project builds is then loaded as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pylbr.cli import main

TREE = Path(os.environ.get("PYLBR_KVM_UNIT_TESTS", "/nonexistent"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TREE / "x86" / "pmu_lbr.flat").exists(),
                       reason="PYLBR_KVM_UNIT_TESTS names no built kvm-unit-tests"),
]
#: Its status for a test that the processor has no use for is 77.
SKIPPED = 77 >> 1


def run(name: str, capfd: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = main(["run", "--limit", "8000000000", *options, str(TREE / "x86" / name)])
    return code, capfd.readouterr().out


@pytest.mark.parametrize("model", ["nehalem", "haswell", "skylake", "goldmont-plus"])
def test_pmu_lbr(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out = run("pmu_lbr.flat", capfd, "--model", model)
    assert (code, out.count("PASS: "), "FAIL" in out) == (0, 3, False), out


def test_pmu_lbr_as_elf64(capfd: pytest.CaptureFixture[str]) -> None:
    code, out = run("pmu_lbr.elf", capfd, "--model", "haswell")
    assert (code, out.count("PASS: "), "FAIL" in out) == (0, 3, False), out


def test_pmu_lbr_skips_architectural_lbrs(capfd: pytest.CaptureFixture[str]) -> None:
    code, out = run("pmu_lbr.flat", capfd, "--model", "sapphire-rapids")
    assert code == SKIPPED
    assert "LBR on this platform is not supported!" in out


def test_pmu(capfd: pytest.CaptureFixture[str]) -> None:
    """Caches and the time stamp counter's clock are not counted here."""
    if not (TREE / "x86" / "pmu.flat").exists():
        pytest.skip("no x86/pmu.flat")
    _, out = run("pmu.flat", capfd, "--model", "skylake", "--memory", "256")
    failed = re.findall(r"^FAIL: (?:full-width writes: )?(.*?)\r?$", out, re.MULTILINE)
    assert "SUMMARY: " in out
    others = [name for name in failed
              if not re.fullmatch(r"llc (references|misses)-\d|fixed-2|all counters", name)]
    assert not others
