"""A small guest: Debian's kernel, busybox, some modules, and work that leaves the machine off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pylbr.errors import UnsupportedFeature
from pylbr.linux import debian
from pylbr.linux.archive import Archive
from pylbr.perf.stacks import Mmap, Samples
from pylbr.system.kernel import GuestKernel, read_kernel
from pylbr.system.monitor import Monitor
from pylbr.trace import open_stacks

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("lib/lz4/lz4_compress.ko", "crypto/lz4.ko", "mm/zsmalloc.ko", "lib/raid6/raid6_pq.ko")
SHELL = ("sh", "cat", "mount", "insmod", "seq", "sort", "gzip", "sha256sum", "find", "sleep",
         "poweroff", "grep")
WORK = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys
{loads}
cat /proc/modules; grep -E ' (_text|_etext)$' /proc/kallsyms
for i in $(seq 1 {times}); do seq 1 20000 | sort -r | gzip | sha256sum; done
find /proc/1 /sys/kernel | sort | sha256sum >/dev/null
echo '== ended'; sleep {rest}
poweroff -f
"""


def need(condition, reason):
    """Skip where something is missing; fail in CI, which has it all."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@dataclass
class Guest:
    """What QEMU boots."""

    kernel: Path
    initrd: Path

    def arguments(self, *more, append=""):
        """Of a qemu-system; the timer of a busy host may look broken to the guest."""
        return ["-kernel", str(self.kernel), "-initrd", str(self.initrd), "-append",
                f"console=ttyS0 quiet no_timer_check panic=-1 {append}", "-m", "256", "-display",
                "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", *more]


@dataclass
class Recorded:
    """A recording, what the guest printed, and its kernel's code as it was at the end."""

    said: str = ""
    printed: str = ""
    maps: list = field(default_factory=list)
    stacks: list = field(default_factory=list)
    ips: list = field(default_factory=list)
    code: bytes = b""
    kernel: GuestKernel | None = None
    slide: int = 0
    gates: set = field(default_factory=set)

    @property
    def edges(self):
        return {tuple(pair) for stack in self.stacks for pair in stack}

    def symbol(self, name):
        return self.kernel.symbols[name] + self.slide


def made_guest(place, rest, times=1):
    """The guest's files; it works that many times, and rests so many seconds before its end."""
    need(shutil.which("qemu-system-x86_64"), "no qemu-system-x86_64")
    try:
        kernel = debian.kernel()
        busybox = debian.file_of("busybox-static", "bin/busybox", "usr/bin/busybox")
    except UnsupportedFeature as error:
        need(False, str(error))
    archive, loads = Archive(), []
    for folder in ("bin", "dev", "proc", "sys", "tmp", "lib"):
        archive.directory(folder)
    archive.device("dev/console", 5, 1)
    archive.copy("bin/busybox", busybox)
    for name in SHELL:
        archive.link(f"bin/{name}", "busybox")
    folder = next(kernel.parents[1].glob("lib/modules/*/kernel"))
    for name in MODULES:
        archive.copy(f"lib/{Path(name).name}", folder / name)
        loads.append(f"insmod /lib/{Path(name).name}")
    work = WORK.format(loads="\n".join(loads), rest=rest, times=times)
    archive.file("init", work.encode(), 0o755)
    initrd = place / "initrd"
    initrd.write_bytes(archive.pack())
    return Guest(kernel, initrd)


@pytest.fixture(scope="session")
def guest(tmp_path_factory):
    return made_guest(tmp_path_factory.mktemp("guest"), 30)


def record(guest, place, *options, append=""):
    """``pylbr record --system``, and, just before the guest ends, its kernel's code."""
    found, path = Recorded(kernel=read_kernel(str(guest.kernel))), place / "system.data"
    with Monitor() as monitor, subprocess.Popen(
            [sys.executable, "-m", "pylbr", "record", "--system", "-o", path, *options, "--",
             *guest.arguments(*monitor.option, append=append)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}) as run:
        timer = threading.Timer(400, run.kill)
        timer.start()
        try:
            for line in run.stdout:
                found.printed += line
                match = re.match(r"([0-9a-f]{16}) . _text$", line.strip())
                if match:
                    found.slide = int(match[1], 16) - found.kernel.start
                if line.startswith("== ended"):
                    found.code = code_of(monitor, found)
                    found.gates = set(map(int, monitor.gates()))
            found.said = run.stderr.read()
            assert run.wait() == 0, found.said + found.printed
        finally:
            timer.cancel()
            run.kill()
    with open_stacks(path) as source:
        for row in source:
            if isinstance(row, Mmap):
                found.maps.append(row)
            elif isinstance(row, Samples):
                found.ips += row.ip.tolist()
                found.stacks += [
                    list(zip(s["from"].tolist(), s["to"].tolist(), strict=True))
                    for s in map(row.stack, range(len(row)))]
    return found


def code_of(monitor, found, piece=1 << 20):
    """The guest's kernel code, read while it sleeps."""
    size, start, parts = len(found.kernel.code), found.kernel.start + found.slide, []
    for at in range(0, size, piece):
        for _ in range(100):  # a processor that runs a program may have no kernel mapped
            part = monitor.memory(start + at, min(piece, size - at))
            if part is not None:
                break
            time.sleep(0.02)
        assert part is not None, hex(start + at)
        parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="session")
def recorded(guest, tmp_path_factory):
    """One recording of kernel and programs, KASLR and all."""
    return record(guest, tmp_path_factory.mktemp("recorded"), "-c", "20011")


def of_kernel(addresses):
    return np.array(sorted(a for a in addresses if a >> 63), np.uint64)
