"""A Linux booted, at work and switched off under qemu-system, recorded beside the same QEMU alone.

CPU seconds of all processes, pylbr's among them; one of each in turn.  Goal: at most 1.5 x.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

from bench.conftest import QUICK
from pylbr.bench.child import used
from tests.system.conftest import made_guest

RATES = {"-c 100003": ["-c", "100003"], "-F 1000": ["-F", "1000"],
         "kernel, -c 100003": ["-c", "100003", "-j", "any,k"]}


def cpu_of(command):
    before = used()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return used() - before


@pytest.mark.parametrize("name", RATES)
def test_a_recorded_system_beside_the_same_qemu(benchmark, tmp_path, name):
    guest = made_guest(tmp_path, 0, times=8)
    seconds: list[tuple[float, float]] = []
    recorder = [sys.executable, "-m", "pylbr", "record", "--system", "-q", *RATES[name], "-o",
                tmp_path / "data", "--"]
    benchmark.pedantic(lambda: seconds.append((
        cpu_of([*recorder, *guest.arguments(append="nokaslr")]),
        cpu_of(["qemu-system-x86_64", *guest.arguments(append="nokaslr")]))),
        rounds=3 if QUICK else 5)
    ratios = [mine / other for mine, other in seconds]
    benchmark.extra_info.update({
        "CPU s": min(mine for mine, _ in seconds), "CPU s of QEMU": min(o for _, o in seconds),
        "ratio (goal 1.5)": statistics.median(ratios)})
    print(name, {key: round(value, 2) for key, value in benchmark.extra_info.items()})
