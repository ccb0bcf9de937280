"""Linux on two processors, each with LBRs of its own."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest

from pylbr.cli import main
from pylbr.embed.contention import Act, Contention, Point, Script
from pylbr.embed.machine import MIB
from pylbr.embed.multiprocessor import Multiprocessor
from pylbr.linux.boot import boot
from pylbr.linux.booted import COMMAND_LINE, Guest, booted
from pylbr.linux.console import Console
from pylbr.linux.kernel import load
from pylbr.linux.session import execute
from pylbr.linux.system import initramfs
from tests.linux.branch_check import Code

pytestmark = pytest.mark.peer

#: One program on each processor, at the same time; system-wide recording.
COMMAND = (
    "mount -o bind /dev/null /proc/kallsyms; "
    "perf record -q -BN -a -b -e branches:u -c 1009 "
    "sh -c 'taskset 1 ./work & taskset 2 ./work & wait'; "
    "grep -c ^processor /proc/cpuinfo; grep -e NMI -e RES -e CAL /proc/interrupts")


def record(kernel, work, contention=None):
    """The machine, the recording, what the console showed, and what the command printed."""
    shown, printed = bytearray(), bytearray()
    machine, channel = booted(
        Guest(kernel, initramfs(), processors=2), Console(shown.extend), printed.extend,
        limit=2_000_000_000, contention=contention)
    result = execute(machine, channel, COMMAND, {"work": work}, 2_000_000_000)
    assert (result.ending.kind, result.ending.code) == ("exit", 0), printed
    assert all(cpu.link.recorder.unexplained == 0 for cpu in machine.cpus)
    return machine, result.files["perf.data"], shown.decode(errors="replace"), printed.decode()


@pytest.fixture(scope="module")
def recorded(kernel, work):
    """The recording, what the console showed, and what the command printed."""
    return record(kernel, work)[1:]


def test_a_host_beside_each_processor_changes_nothing(kernel, work, recorded):
    """Under a lease, while the host of each has an event open, samples, closes and migrates."""
    machine, data, *_ = record(kernel, work, Contention(Script("lease", (
        Point("at", 1000, Act("open", 3)), Point("every", 200_000, Act("sample")),
        Point("every", 3_000_000, Act("close")), Point("every", 3_100_000, Act("open", 3)),
        Point("every", 7_000_000, Act("migrate"))))))
    hosts = [cpu.contention for cpu in machine.cpus]
    assert hosts[0] is not hosts[1] and all(host.samples > 500 for host in hosts)
    assert all(host.own > 5000 for host in hosts)
    assert [(host.leaked, host.breaches) for host in hosts] == [(0, 0), (0, 0)]
    assert data == recorded[0]


def test_the_kernel_brings_both_up(recorded):
    _, console, printed = recorded
    assert "smp: Brought up 1 node, 2 CPUs" in console
    assert re.search("^2$", printed, re.M)
    assert not re.search("WARN|BUG|Oops|unchecked MSR|TSC .*unstable|sync .*fail", console)


def test_each_processor_records_its_own_branches(recorded, work, tmp_path):
    """All entries of both are branches of the program, joined by straight code."""
    place = tmp_path / "perf.data"
    place.write_bytes(recorded[0])
    text = subprocess.run(
        ["perf", "script", "-i", str(place), "-F", "comm,tid,cpu,brstack"], check=True,
        capture_output=True, text=True, timeout=60).stdout
    code, samples, wrong = Code(work), Counter(), []
    for thread, cpu, line in re.findall(r"^\s*work\s+(\d+)\s+\[(\d+)\](.*)$", text, re.M):
        stack = [(int(a, 16), int(b, 16))
                 for a, b in re.findall(r"0x([0-9a-f]+)/0x([0-9a-f]+)/", line)]
        samples[thread, int(cpu)] += 1
        wrong += [(cpu, entry) for entry in stack if code.wrong(*entry)]
        wrong += [(cpu, older, newer) for newer, older in zip(stack, stack[1:], strict=False)
                  if code.at[older[0]][0] != "syscall"
                  and not code.connected(older[1], newer[0])]
    assert not wrong
    # A thread each, and of each as many as of one alone: 20,000 rounds with 4 or 5 branches.
    assert sorted(cpu for _, cpu in samples) == [0, 1], samples
    assert all(4 * 20000 / 1009 < count < 5.5 * 20000 / 1009 for count in samples.values())


def test_the_processors_interrupt_each_other(recorded):
    """NMIs of both counters, and both kinds of interprocessor interrupt."""
    counts = {name: [int(n) for n in (a, b)] for name, a, b in re.findall(
        r"^\s*(\w+):\s+(\d+)\s+(\d+)", recorded[2], re.M)}
    assert min(counts["NMI"]) > 80
    assert min(counts["CAL"]) > 10 and max(counts["RES"]) > 10


def test_two_starts_are_identical(kernel):
    """As far as both processors run: console, instructions of each, and all of the memory."""
    def started():
        shown = bytearray()
        machine = Multiprocessor(memory=256 * MIB, console=shown.extend)
        boot(machine, load(kernel), b"", COMMAND_LINE)
        while b"Brought up 1 node, 2 CPUs" not in shown and machine.clock < 200_000_000:
            assert machine.run(5_000_000).kind == "limit"
        return machine, shown

    (one, shown), (other, again) = started(), started()
    assert b"Brought up 1 node, 2 CPUs" in shown
    assert shown == again
    instructions = [[cpu.link.recorder.instructions for cpu in machine.cpus]
                    for machine in (one, other)]
    assert instructions[0] == instructions[1] and min(instructions[0]) > 100_000
    assert one.uc.mem_read(0, 256 * MIB) == other.uc.mem_read(0, 256 * MIB)


@pytest.mark.parametrize(("words", "what"), [
    (["--cpus", "5"], "1 to 4"), (["--cpus", "0"], "1 to 4"),
    (["--cpus", "2", "--trace", "t.arrow"], "--trace"),
    (["--cpus", "2", "--pause", "5", "--save", "t.vm"], "--save"),
])
def test_what_is_of_one_processor_only(kernel, words, what, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--kernel", str(kernel), *words]) == 2
    assert what in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
