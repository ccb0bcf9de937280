"""A seed varies what a guest takes for chance, and nothing else does."""

from __future__ import annotations

import pytest
from unicorn import x86_const as reg

from pylbr.cli import main
from pylbr.embed.machine import MIB, Ending, Machine
from pylbr.embed.platform import FREQUENCY, TSC
from pylbr.embed.time_on import LONGEST
from pylbr.linux.boot import boot
from pylbr.linux.booted import COMMAND_LINE
from pylbr.linux.kernel import load

pytestmark = pytest.mark.peer

#: Where x86-64 Linux keeps the stack's canary of the running task, from GS.
CANARY = 0x28


def early(kernel, seed: int | None) -> tuple[bytes, int, bytes]:
    """What a kernel has printed when its clocks run, after how many instructions, and the
    random number by which it guards its stack."""
    shown = bytearray()

    def console(data: bytes) -> None:
        shown.extend(data)
        if b"Calibrating delay loop" in shown:
            machine.stop(Ending("exit", 0, "seen"))

    machine = Machine(memory=256 * MIB, console=console, seed=seed)
    boot(machine, load(kernel), b"", COMMAND_LINE)
    assert machine.run(200_000_000).kind == "exit", shown[-2000:]
    canary = machine.link.engine.read(machine.uc.reg_read(reg.UC_X86_REG_GS_BASE) + CANARY, 8)
    return bytes(shown), machine.link.recorder.instructions, canary


def test_seeds(kernel):
    """One seed, one run; another, other random numbers."""
    first = early(kernel, 1)
    assert first == early(kernel, 1)
    assert any(first[2]) and first[2] != early(kernel, 2)[2]


def test_clocks():
    """Both clocks of a machine agree on how long it has been on, for every seed less than a
    year."""
    def shown(seed: int | None) -> tuple[int, int, int]:
        machine = Machine(seed=seed)
        date = []
        for index in (7, 8):
            machine.ports.write(0x70, index)
            date.append(machine.ports.read(0x71, 1))
        return machine.platform.msr(TSC, None), *date

    assert shown(None) == (0, 0x01, 0x01)
    seeds = range(40)
    ticks = [shown(seed)[0] for seed in seeds]
    assert len(set(ticks)) == len(seeds) and min(ticks) > 0 and max(ticks) < LONGEST
    assert len({shown(seed)[1:] for seed in seeds}) > 20
    assert LONGEST / FREQUENCY < 366 * 24 * 3600
    # A guest that corrects the counter finds it correct.
    assert Machine(seed=1).platform.msr(0x3B, None) == 0


def test_seeds_that_are_none(kernel, linux, capsys):
    for words, message in (
            (["--kernel", str(kernel), "--seed", "-1"], "seed: must be 0 to"),
            (["--kernel", str(kernel), "--seed", str(1 << 64)], "seed: must be 0 to"),
            ([str(linux.saved), "--seed", "1"], "a saved machine keeps its clocks")):
        assert main(["run", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
