"""Full matrices of Linux guests, as the tables of docs/linux.md.

    python -m tests.linux.matrix models
    python -m tests.linux.matrix kernels FILE...
    python -m tests.linux.matrix contention [POLICY...]
    python -m tests.linux.matrix processors [POLICY...]
    python -m tests.linux.matrix seeds [N...]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pylbr.arbitration import POLICIES
from pylbr.embed.channel import Channel
from pylbr.embed.contention import Act, Contention, Point, Script
from pylbr.embed.host_side import HOST_FROM
from pylbr.embed.savefile import restore, save
from pylbr.linux import debian
from pylbr.linux.booted import Guest, NotBooted, booted
from pylbr.linux.console import Console
from pylbr.linux.session import Result, execute
from pylbr.linux.system import initramfs
from tests.linux.branch_check import Code, stacks
from tests.linux.programs import build

MODELS = ("sapphire-rapids", "alder-lake-p", "sierra-forest", "architectural", "nehalem",
          "westmere", "sandy-bridge", "haswell", "skylake", "goldmont", "knights-landing")
PMU = "/sys/bus/event_source/devices/cpu*"
RECORD = (f"cat {PMU}/caps/pmu_name {PMU}/caps/branches; mount -o bind /dev/null /proc/kallsyms; "
          "perf record -q -BN -b -e branches:u -c 1009 ./work")
#: Nothing filters these, so that whatever the LBRs contain is in the file.
RECORD_BOTH = ("mount -o bind /dev/null /proc/kallsyms; "
               "perf record -q -BN -b -e branches -c 1009 ./work 5000")
LIMIT = 6_000_000_000
#: Call stacks of a task that shares its CPU: Linux leaves them in the LBRs, or restores them.
STACKS = ("mount -o bind /dev/null /proc/kallsyms; (while :; do :; done) & "
          "perf record -q -BN --call-graph lbr -e branches:u -c 5003 ./calls 50000; kill $!")
#: A program of that kind on each of two processors, which wait for work beside it.
STACKS_OF_TWO = (
    "mount -o bind /dev/null /proc/kallsyms; "
    "perf record -q -BN -a --call-graph lbr -e cycles:u -c 1009 "
    "sh -c 'taskset 1 ./calls & taskset 2 ./calls & wait'")
#: Models on which a policy of each kind works, and one of them to boot under.
FIRST = {"sapphire-rapids": "lease", "haswell": "kvm-legacy"}
#: Policies that keep host and guest apart.
KEEP = ("lease", "mediated", "request")
HOST = (Point("at", 1000, Act("open", 3)), Point("every", 200_000, Act("sample")),
        Point("every", 3_000_000, Act("close")), Point("every", 3_100_000, Act("open", 3)),
        Point("every", 7_000_000, Act("migrate")))
#: Other tasks run, so that a policy that releases the LBRs of a guest that has them off does.
OTHERS = (Point("at", 1000, Act("open", 3)), Point("every", 20_011, Act("switch", 0)),
          Point("every", 20_011, Act("switch", 0)), Point("every", 20_011, Act("branches", 16)))


@dataclass(frozen=True)
class Recorded:
    """A boot, and a recording in it."""

    console: str
    printed: str
    result: Result
    data: bytes
    seconds: float


def recorded(guest: Guest, work: Path, command: str = RECORD,
             contention: Contention | None = None) -> Recorded:
    """Boot, record `work`."""
    started = time.process_time()
    shown, printed = bytearray(), bytearray()
    machine, channel = booted(guest, Console(shown.extend), printed.extend, limit=LIMIT,
                              contention=contention, fresh=True)
    result = execute(machine, channel, command, {"work": work}, LIMIT)
    return Recorded(shown.decode("utf-8", "replace"), printed.decode("utf-8", "replace"), result,
                    result.files.get("perf.data", b""), time.process_time() - started)


def checked(data: bytes, work: Path) -> tuple[int, int, int, int]:
    """Samples, entries, the deepest stack, and entries that are no branch of the program."""
    code = Code(work)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "perf.data")
        path.write_bytes(data)
        found = stacks(path)
    entries = [entry for stack in found for entry in stack]
    # Legacy LBRs without kernel branches keep those that end in user code, and Linux does, too.
    entries = [entry for entry in entries if not entry[0] >> 63 or entry[1] >> 63]
    wrong = [(entry, code.wrong(*entry)) for entry in entries if code.wrong(*entry)]
    for (source, target), why in wrong:
        print(f"{source:#x} -> {target:#x}: {why}", file=sys.stderr)
    return len(found), len(entries), max(map(len, found), default=0), len(wrong)


def row(*cells: object) -> None:
    """One row of a table, at once."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def heading(*cells: str) -> None:
    """The first two rows."""
    row(*cells)
    print("|" + "---|" * len(cells), flush=True)


def recording_row(name: str, guest: Guest, work: Path) -> bool:
    """A row of `models` or `kernels`; whether all is well."""
    try:
        run = recorded(guest, work)
    except NotBooted as failed:
        row(name, f"not booted: {failed.ending.reason}", *[""] * 8)
        return False
    line = re.search("Performance Events: (.*)", run.console)
    depth = re.search(r"(\d+)-deep LBR", run.console)
    pmu, branches = (run.printed.split() + ["", ""])[:2]
    samples, entries, deepest, wrong = checked(run.data, work) if run.data else (0, 0, 0, 0)
    warnings = len(re.findall("WARNING|BUG:|Oops|unchecked MSR", run.console))
    events = re.sub(", (?:AnyThread|full|[0-9]+-deep|Intel).*", "", line[1]) if line else ""
    row(name, events, depth[1] if depth else "none", pmu, branches, samples,
        f"{deepest} of {entries}", wrong, warnings, f"{run.seconds:.0f}")
    return bool(depth and entries and not wrong and not warnings and deepest == int(depth[1]))


RECORDINGS = ("", "Performance Events", "deep", "pmu_name", "branches", "samples",
              "deepest of entries", "wrong", "warnings", "CPU s")


def models(names: Sequence[str], work: Path) -> bool:
    """Each model boots and records."""
    heading(*RECORDINGS)
    kernel, initrd = debian.kernel(), initramfs()
    failed = [name for name in names or MODELS
              if not recording_row(name, Guest(kernel, initrd, name), work)]
    return not failed


def kernels(files: Iterable[str], work: Path) -> bool:
    """Each kernel boots and records."""
    heading(*RECORDINGS)
    initrd = initramfs()
    failed = [file for file in files for model in ("sapphire-rapids", "haswell")
              if not recording_row(f"{Path(file).name} on {model}",
                                   Guest(Path(file), initrd, model), work)]
    return not failed


def vcpu(model: str, folder: Path) -> Path:
    """A booted guest on a vCPU, saved."""
    saved = folder / f"{model}.vm"
    machine, _ = booted(Guest(debian.kernel(), initramfs(), model), Console(), lambda data: None,
                        limit=LIMIT, contention=Contention(Script(FIRST[model], ())))
    save(machine, saved)
    return saved


def recorded_beside(saved: Path, host: Contention, command: str, program: Path) -> bytes:
    """The perf.data of a guest under `host`."""
    console = Console()
    machine = restore(saved, console=console, contention=host)
    console.watch(machine)
    result = execute(machine, Channel(machine), command, {program.name: program}, LIMIT)
    return result.files.get("perf.data", b"")


def branches(data: bytes) -> list[list[tuple[int, int]]]:
    """The stacks of a perf.data."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "perf.data")
        path.write_bytes(data)
        return stacks(path)


def of_the_host(data: bytes) -> int:
    """Entries of a guest's perf.data that are the host's branches."""
    return sum(source >> 32 == HOST_FROM >> 32 for stack in branches(data) for source, _ in stack)


def entries(data: bytes) -> int:
    """Branches in the stacks of a perf.data."""
    return sum(map(len, branches(data)))


def contention(names: Sequence[str], work: Path) -> bool:
    """The same recordings as vCPU under every policy, beside a host that uses the LBRs, too."""
    heading("", "host's samples", "without records", "of the guest", "host's read by the guest",
            "host's in perf.data", "perf.data as alone", "call stacks as alone", "their entries")
    well, calls = True, build("calls", work.parent)
    recordings = ((RECORD_BOTH, work, HOST), (STACKS, calls, OTHERS))
    with tempfile.TemporaryDirectory() as folder:
        for model, first in FIRST.items():
            policies = [name for name in names or POLICIES
                        if name.startswith("kvm-legacy") == first.startswith("kvm-legacy")]
            saved = vcpu(model, Path(folder)) if policies else Path()
            alone = [recorded_beside(saved, Contention(Script(first, ())), command, program)
                     for command, program, _ in recordings if policies]
            for policy in policies:
                hosts = [Contention(Script(policy, points)) for _, _, points in recordings]
                data = [recorded_beside(saved, host, command, program)
                        for host, (command, program, _) in zip(hosts, recordings, strict=True)]
                read, leaked = sum(host.leaked for host in hosts), sum(map(of_the_host, data))
                same = ["yes" if mine == other else "no"
                        for mine, other in zip(data, alone, strict=True)]
                row(policy, hosts[0].samples, hosts[0].absent, hosts[0].breaches, read, leaked,
                    *same, f"{entries(data[1])} of {entries(alone[1])}")
                well &= policy not in KEEP or not read and not leaked and not hosts[0].breaches
    return well


def processors(names: Sequence[str], work: Path) -> bool:
    """Call stacks of two processors, each a vCPU beside a host of its own."""
    heading("", "host's read by the guest", "host's in perf.data", "branches as alone", "entries")
    calls, alone, well = build("calls", work.parent), b"", True
    kernel, initrd = debian.kernel(), initramfs()
    for policy in ("", *(names or (*KEEP, "arch-lbr-v2"))):
        host = Contention(Script(policy or "lease", OTHERS if policy else ()))
        machine, channel = booted(
            Guest(kernel, initrd, processors=2), Console(), lambda data: None, limit=LIMIT,
            contention=host)
        result = execute(machine, channel, STACKS_OF_TWO, {"calls": calls}, LIMIT)
        data = result.files.get("perf.data", b"")
        alone = alone or data
        read = [cpu.contention.leaked for cpu in machine.cpus if cpu.contention]
        row(policy or "alone", " and ".join(map(str, read)), of_the_host(data),
            "yes" if branches(data) == branches(alone) else "no",
            f"{entries(data)} of {entries(alone)}")
        well &= policy not in KEEP or not any(read) and not of_the_host(data)
        well &= policy not in ("lease", "mediated") or branches(data) == branches(alone)
    return well


def seeds(names: Sequence[str], work: Path) -> bool:
    """Two boots and recordings with each seed."""
    heading("", "date", "random number", "samples", "wrong", "second run")
    kernel, initrd, shown = debian.kernel(), initramfs(), set()
    well, numbers = True, [int(name) for name in names or ("1", "2")]
    for number in numbers:
        first, second = (recorded(Guest(kernel, initrd, seed=number), work,
                                  f"date +%F; cat /proc/sys/kernel/random/uuid; {RECORD}")
                         for _ in range(2))
        date, uuid = first.printed.split()[:2]
        samples, _, _, wrong = checked(first.data, work)
        same = (first.console, first.printed, first.data) == (
            second.console, second.printed, second.data)
        row(number, date, uuid, samples, wrong, "identical" if same else "differs")
        well &= same and samples > 0 and not wrong
        shown.add(uuid)
    return well and len(shown) == len(numbers)


COMMANDS = {"contention": contention, "models": models, "kernels": kernels,
            "processors": processors, "seeds": seeds}


def main() -> int:
    """Run a matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("matrix", choices=COMMANDS)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if COMMANDS[args.matrix](args.names, build("work", Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
