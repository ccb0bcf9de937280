"""Short runs of commands, and their inputs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pylbr.files.elf import ElfImage
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, entry_flags
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Comm, Event, Mmap, Samples, StacksMetadata

__all__ = ["RUNS", "Run", "inputs", "running"]

BRANCHES = 20_000


@dataclass(frozen=True)
class Run:
    """One call.

    Attributes
    ----------
    words : tuple of str
        ``{inputs}`` stands for the directory of `inputs`, ``{running}`` for the process of
        `running`; the call runs in an empty directory.
    output : str
        What it writes; empty if it answers on standard output.
    kept : str
        Directory of parts that it leaves for the next call, which continues.
    same : bool
        Two calls write the same bytes.
    code : int
        Exit code without fault.
    """

    words: tuple[str, ...]
    output: str = ""
    kept: str = ""
    same: bool = True
    code: int = 0

    @property
    def command(self) -> str:
        """The first word."""
        return self.words[0]


def _convert(source: str, output: str, *more: str) -> Run:
    return Run(("convert", f"{{inputs}}/{source}", "-o", output, *more), output)


_MERGE = ("merge", "{inputs}/0.perf.data", "{inputs}/1.perf.data", "-o", "o.preagg", "--binary",
          "{inputs}/elf")
RUNS = {
    "convert to arrow": _convert("t.csv", "o.arrow"),
    "convert to parquet": _convert("t.arrow", "o.parquet"),
    "convert to lbrt": _convert("t.parquet", "o.lbrt"),
    "convert to csv": _convert("t.lbrt", "o.csv"),
    "convert to perfscript": _convert("0.perf.data", "o.perfscript"),
    "convert to folded": _convert("0.perf.data", "o.folded", "--binary", "{inputs}/elf"),
    "convert to pprof": _convert("0.perf.data", "o.pb.gz", "--binary", "{inputs}/elf"),
    "replay": Run(("replay", "{inputs}/t.parquet", "-c", "500", "-o", "o.perf.data"),
                  "o.perf.data"),
    "report": Run(("report", "{inputs}/0.perf.data")),
    "merge": Run(_MERGE, "o.preagg"),
    "merge --resume": Run((*_MERGE, "--resume", "parts"), "o.preagg", "parts"),
    "merge --jobs": Run((*_MERGE, "--jobs", "2"), "o.preagg"),
    "inspect a trace": Run(("inspect", "{inputs}/t.parquet")),
    "inspect stacks": Run(("inspect", "{inputs}/0.perf.data")),
    "doctor": Run(("doctor", "{inputs}/0.perf.data", "--binary", "{inputs}/elf"), code=1),
    "report --html": Run(("report", "{inputs}/0.perf.data", "--html", "o.html"), "o.html",
                         same=False),
    "verify": Run(("verify", "request", "--depth", "1", "--guests", "1", "--events", "cpu",
                   "--features", "nmi", "--jobs", "1"), same=False),
    "verify --jobs": Run(("verify", "request", "lease", "--depth", "1", "--guests", "1", "--events",
                          "cpu", "--features", "nmi", "--jobs", "2"), same=False),
    "verify --story": Run(("verify", "lease", "--story", "guest wrmsr LBR_CTL; guest branch; "
                           "IPI opens cpu-exclude")),
    "run": Run(("run", "{inputs}/lbr_basic.elf", "--trace", "o.lbrt"), "o.lbrt"),
    "run --save": Run(("run", "{inputs}/lbr_basic.elf", "--pause", "2000", "--save", "o.machine"),
                      "o.machine"),
    "arbitrate": Run(("arbitrate", "lease", "--branches", "2000")),
    "msr": Run(("msr", "IA32_LBR_CTL")),
    "record": Run(("record", "-q", "-o", "o.perf.data", "--", sys.executable, "-S", "-c",
                   "sum(range(100000))"), "o.perf.data", same=False),
    "record -p": Run(("record", "-q", "-o", "o.perf.data", "--duration", "0.3", "-p", "{running}"),
                     "o.perf.data", same=False),
    "record --full": Run(("record", "-q", "--full", "-o", "o.lbrt", "--", "{inputs}/elf_program"),
                         "o.lbrt", same=False),
}


def running() -> subprocess.Popen[bytes]:
    """A program that runs until it is killed, or its parent is gone, for `record -p`."""
    program = ("import os, time\nparent = os.getppid()\n"
               "while os.getppid() == parent: sum(range(20_000)); time.sleep(0.0005)")
    return subprocess.Popen([sys.executable, "-S", "-c", program])


def inputs(folder: Path) -> None:
    """Write the inputs of all runs."""
    import pylbr.perf._entries as some_module
    from pylbr.selftest.guest_images import build

    build(folder, "lbr_basic")
    (folder / "program.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["cc", "-O1", folder / "program.c", "-o", folder / "elf_program"], check=True)
    binary = Path(some_module.__file__)
    (folder / "elf").symlink_to(binary)
    rows = [f"{0x401000 + 16 * (i % 97):#x},{0x401000 + 16 * (i * 31 % 97):#x},COND"
            for i in range(BRANCHES)]
    (folder / "t.csv").write_text("from,to,class\n" + "\n".join(rows) + "\n")
    for before, after in (("csv", "arrow"), ("csv", "parquet"), ("csv", "lbrt")):
        subprocess.run([sys.executable, "-m", "pylbr", "convert", folder / f"t.{before}", "-o",
                        folder / f"t.{after}"], check=True)
    for number in range(2):
        _stacks(folder / f"{number}.perf.data", folder / "elf", number)


def _stacks(path: Path, binary: Path, number: int) -> None:
    """Stacks of branches between functions of a binary."""
    image, base, depth = ElfImage(str(binary)), 0x7F00_0000_0000 + (number << 32), 8
    starts = sorted(start for start, _ in image.functions().values())[:12]
    to = base + np.array([starts[i * 7 % len(starts)] for i in range(40 * depth)], np.uint64)
    entries = np.zeros(len(to), BRANCH_ENTRY_DTYPE)
    entries["to"] = to
    entries["from"][:-1] = to[1:] + 5
    entries["from"][-1] = base + starts[0]
    entries["flags"] = entry_flags(predicted=True)
    pid = 100 + number
    maps = [Mmap(pid, pid, base + address, size, offset, str(binary.resolve()))
            for offset, size, address, _ in image.segments]
    batch = Samples.build(np.arange(0, len(to) + 1, depth), entries, ip=to[::depth], pid=pid,
                          tid=pid)
    events = (Event(name="branches:u", branch_sample_type=9),)
    write_perf_data(path, (StacksMetadata(events=events),
                           [Comm(pid, pid, "x", True), *maps, batch]))
