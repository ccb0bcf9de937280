"""Linux from its first instruction to its init, beside QEMU's own translation (TCG).

The same kernel, initrd and command line; CPU seconds, which sleep does not count in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pylbr.embed.machine import MIB, Ending, Machine
from pylbr.embed.multiprocessor import Multiprocessor
from pylbr.linux import debian
from pylbr.linux.boot import boot
from pylbr.linux.booted import COMMAND_LINE
from pylbr.linux.kernel import load
from pylbr.linux.system import initramfs

QUICK = os.environ.get("PYLBR_BENCH") == "quick"
LAST = b"Run /init as init process"
MEMORY = 512


def ours(kernel: Path, initrd: bytes, processors: int = 1) -> float:
    """CPU seconds of the machine; its LBRs are those of Sapphire Rapids."""
    shown = bytearray()

    def console(data: bytes) -> None:
        shown.extend(data)
        if data == b"\n" and LAST in shown[-200:]:
            machine.stop(Ending("exit", 0, "there"))

    started = time.process_time()
    machine = (Machine(memory=MEMORY * MIB, console=console) if processors == 1 else
               Multiprocessor(processors=processors, memory=MEMORY * MIB, console=console))
    boot(machine, load(kernel), initrd, COMMAND_LINE)
    assert machine.run(2_000_000_000).kind == "exit"
    return time.process_time() - started


def qemu(kernel: Path, initrd: Path) -> float:
    """CPU seconds of qemu-system-x86_64."""
    with subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY), "-display",
             "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel,
             "-initrd", initrd, "-append", COMMAND_LINE],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        for line in process.stdout:
            if LAST in line:
                break
        else:
            raise AssertionError("qemu ended before init")
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        process.kill()
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64")
def test_kernel_to_init(benchmark, tmp_path):
    kernel, initrd = debian.kernel(), initramfs()
    file = tmp_path / "initrd"
    file.write_bytes(initrd)
    seconds: list[tuple[float, float]] = []
    benchmark.pedantic(lambda: seconds.append((ours(kernel, initrd), qemu(kernel, file))),
                       rounds=1 if QUICK else 3)
    mine, other = map(min, zip(*seconds, strict=True))
    benchmark.extra_info.update({
        "CPU s": mine, "CPU s of QEMU": other, "ratio (goal 2.5)": mine / other})
    print({name: round(value, 2) for name, value in benchmark.extra_info.items()})


def test_two_processors(benchmark):
    """The same start with two processors, beside one."""
    kernel, initrd = debian.kernel(), initramfs()
    seconds: list[tuple[float, float]] = []
    benchmark.pedantic(lambda: seconds.append((ours(kernel, initrd, 2), ours(kernel, initrd))),
                       rounds=1 if QUICK else 3)
    two, one = map(min, zip(*seconds, strict=True))
    benchmark.extra_info.update({"CPU s": two, "CPU s of one": one, "ratio": two / one})
    print({name: round(value, 2) for name, value in benchmark.extra_info.items()})
