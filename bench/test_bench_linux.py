"""Linux from its first instruction to its init, beside QEMU's own translation (TCG).

The same kernel, initrd and command line; CPU seconds, which sleep does not count in.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys

import pytest

from pylbr.bench.rows_guest import linux_by_qemu, linux_by_us
from pylbr.linux import debian
from pylbr.linux.system import initramfs
from tests.linux.programs import build

QUICK = os.environ.get("PYLBR_BENCH") == "quick"
LAST = b"Run /init as init process"
MEMORY = 512


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")
def test_kernel_to_init(benchmark, tmp_path):
    kernel, initrd = debian.kernel(), initramfs()
    file = tmp_path / "initrd"
    file.write_bytes(initrd)
    seconds: list[tuple[float, float]] = []
    benchmark.pedantic(
        lambda: seconds.append((linux_by_us(kernel, initrd),
                                linux_by_qemu("qemu-system-x86_64", kernel, file))),
        rounds=1 if QUICK else 3)
    mine, other = map(min, zip(*seconds, strict=True))
    benchmark.extra_info.update({
        "CPU s": mine, "CPU s of QEMU": other, "ratio (goal 2.5)": mine / other})
    print({name: round(value, 2) for name, value in benchmark.extra_info.items()})


def test_two_processors(benchmark):
    """The same start with two processors, beside one."""
    kernel, initrd = debian.kernel(), initramfs()
    seconds: list[tuple[float, float]] = []
    benchmark.pedantic(
        lambda: seconds.append((linux_by_us(kernel, initrd, 2), linux_by_us(kernel, initrd))),
        rounds=1 if QUICK else 3)
    two, one = map(min, zip(*seconds, strict=True))
    benchmark.extra_info.update({"CPU s": two, "CPU s of one": one, "ratio": two / one})
    print({name: round(value, 2) for name, value in benchmark.extra_info.items()})


#: No names of kernel functions, which cost more than all else.
REPORT = ("mount -o bind /dev/null /proc/kallsyms; "
          "perf record -q -BN -b -e branches:u -c 1009 ./work && perf report --stdio | head -40")


def report_seconds(folder, *options):
    """CPU seconds of `pylbr linux`, processes that it starts included, to a printed report."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run([sys.executable, "-m", "pylbr", "linux", *options, "--", REPORT],
                           cwd=folder, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Basic Block Cycles" in shown
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_start_to_report(benchmark, tmp_path):
    """From the command to what `perf report` prints, booting and from the saved guest."""
    build("work", tmp_path)
    booted = report_seconds(tmp_path, "--boot")
    saved: list[float] = []
    benchmark.pedantic(lambda: saved.append(report_seconds(tmp_path)),
                       rounds=1 if QUICK else 3)
    benchmark.extra_info.update({
        "CPU s, booting (goal 15)": booted, "CPU s, saved (goal 5)": min(saved)})
    print({name: round(value, 2) for name, value in benchmark.extra_info.items()})
