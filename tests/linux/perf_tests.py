"""perf's own tests in a Linux guest, unmodified, as the table of docs/linux.md.

    python -m tests.linux.perf_tests

Those that open counters, record, unwind or use breakpoints; the others of ``perf test list``
compute.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pylbr.linux import debian
from pylbr.linux.booted import Guest, booted
from pylbr.linux.console import Console
from pylbr.linux.session import execute
from pylbr.linux.system import initramfs

__all__ = ["BRSTACK", "brstack_files"]

#: As perf 6.1 numbers them.
NUMBERS = (2, 3, 4, 5, 8, 9, 14, 16, 20, 21, 22, 23, 24, 25, 27, 29, 35, 50, 51, 71, 73, 74, 75, 77,
           78, 92, 97, 98)
#: Where the guest has the shell tests.
TESTS = "usr/lib/perf-core/tests/shell"
#: At perf's usual rate of 4,000 Hz the script's `xargs -n1` would run `echo` for hundreds of
#: thousands of entries.  dash, as busybox's shell takes its own mktemp, which has templates of
#: six X alone.
BRSTACK = ("cd /proc/sys/kernel; echo 25 > perf_cpu_time_max_percent; "
           "echo 400 > perf_event_max_sample_rate; echo 0 > perf_cpu_time_max_percent; "
           "cd /tmp; for name in egrep xargs; do ln -s busybox /bin/$name; done; "
           "dash /usr/lib/perf-core/tests/shell/test_brstack.sh")
LIMIT = 60_000_000_000
#: `cc` in the guest: gives out the program that the host has compiled, of the same source alone.
COMPILER = """#!/bin/sh
for word; do case $word in *.c) source=$word;; esac; last=$word; done
cmp "$source" /work/brstack.c && cp /work/brstack "$last"
"""


def brstack_files(folder: Path) -> dict[str, Path | bytes]:
    """What test_brstack.sh needs of a compiler: its own program, compiled by the host's."""
    script = (debian.root_of("linux-perf", TESTS) / TESTS / "test_brstack.sh").read_text()
    source = re.search(r"cat << EOF > \$1\n(.*?\n)EOF\n", script, re.S)[1]
    (folder / "brstack.c").write_text(source)
    (folder / "cc").write_text(COMPILER)
    (folder / "cc").chmod(0o755)
    subprocess.run(["gcc", "-fno-inline", "-g", "-static", "-o", folder / "brstack",
                    folder / "brstack.c"], check=True, timeout=60)
    return {"brstack.c": folder / "brstack.c", "brstack": folder / "brstack",
            "../usr/local/bin/cc": folder / "cc",
            "../usr/local/bin/dash": Path("/bin/dash"),
            "../usr/local/bin/mktemp": Path("/usr/bin/mktemp")}


def main() -> int:
    """Run them, print the table."""
    print("| | |\n|---|---|")
    line = bytearray()

    def shown(data: bytes) -> None:
        line.extend(data)
        while b"\n" in line:
            text, _, rest = bytes(line).partition(b"\n")
            line[:] = rest
            if found := re.match(r" *([0-9.]+): (.*\S) *: (\S.*)", text.decode()):
                print(f"| {found[1]} {found[2].strip()} | {found[3].strip()} |", flush=True)
            elif text.startswith(b"test_brstack.sh"):
                print(f"| {text.decode()} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        files = brstack_files(Path(folder))
        files["../usr/local/bin/sleep"] = Path("/bin/sleep")
        machine, channel = booted(
            Guest(debian.kernel(), initramfs()), Console(), shown, limit=LIMIT)
        execute(machine, channel, " ; ".join(
            [f"perf test {number} 2>&1 | cat" for number in NUMBERS]
            + [f"{BRSTACK}; echo 'test_brstack.sh | exit code' $?"]), files, LIMIT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
