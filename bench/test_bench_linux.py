"""Linux from its first instruction to its init, beside QEMU's own translation (TCG).

The same kernel, initrd and command line; CPU seconds, which sleep does not count in.
"""

from __future__ import annotations

import os
import shutil

import pytest

from pylbr.bench.rows_guest import linux_by_qemu, linux_by_us
from pylbr.linux import debian
from pylbr.linux.system import initramfs

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
