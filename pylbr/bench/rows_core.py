"""Rows of the facility and the processor: recording, filters, XSAVE, registers, replay."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lbrcore import LbrConfig, LbrState
from lbrcore.events import ALL_CLASSES, CountedEvent
from lbrcore.replay import Replay, SampleBuffer
from lbrcore.rows import Rows
from pylbr.arch import bits
from pylbr.bench import streams
from pylbr.bench.contest import Contender, Contest, Row, Setting
from pylbr.bench.floors import Ring, api, compiled, replay_ring
from pylbr.cpu import Processor
from pylbr.errors import UnsupportedFeature
from pylbr.sample.parallel import run_parallel

__all__ = ["ROWS"]

_ALL: Final = 0x7F0007
#: Conditional branches and calls of user code, and the floor's truth table of the same.
_FILTERED, _ACCEPTED = 0x3A0005, (1 << 2 | 1 << 4 | 1 << 3 | 1 << 5) * (1 << 32 | 1 << 48)
_CALL_STACK: Final = 0x38000D
_N: Final = 1 << 16
_PERIOD: Final = 10_007


def facility(ctl: int) -> LbrState:
    """An architectural facility that records as `ctl` has it."""
    lbr = LbrState(LbrConfig())
    lbr.ctl = ctl
    return lbr


def _or_why(call: Callable[[], Callable[[], Any]]) -> Callable[[], Any] | str:
    """What `call` makes, or why it cannot."""
    try:
        return call()
    except UnsupportedFeature as error:
        return str(error)


def _recorded(ctl: int, weights: dict[int, float], form: str, name: str) -> Contest:
    branches = streams.random_branches(_N, weights)
    if ctl & bits.CTL_CALL_STACK:
        branches["cpl_to"] = 3
    lbr = facility(ctl)

    def floor() -> Callable[[], object]:
        ring = Ring(_ACCEPTED)
        return lambda: ring.record(branches, form)

    return Contest("branches", Contender(lambda: lbr.record(branches), _N),
                   {name: Contender(_or_why(floor), _N)})


def record_all(setting: Setting) -> Contest:
    """Every class."""
    return _recorded(_ALL, streams.UNIFORM, "ring_plain", "C ring")


def record_filtered(setting: Setting) -> Contest:
    """Some classes of one ring."""
    return _recorded(_FILTERED, streams.UNIFORM, "ring_branchy", "C ring with filter")


def record_call_stack(setting: Setting) -> Contest:
    """Calls and returns; the floor keeps no stack."""
    return _recorded(_CALL_STACK, streams.MIX, "ring_plain", "C ring, no stack")


def xsaves(setting: Setting) -> Contest:
    """Component 15 out of a facility, through the table of C functions."""
    library, table, rounds = compiled("floor"), api(), 1000
    state = library.create(table, _ALL)
    branches = streams.random_branches(64, streams.UNIFORM)
    library.table_record(table, state, branches.ctypes.data, 64, 1)
    image, copy = bytearray(808), bytearray(808)
    to, other = (ctypes.addressof((ctypes.c_char * 808).from_buffer(data))
                 for data in (image, copy))
    return Contest("components", Contender(
        lambda: library.table_pack(table, state, to, rounds), rounds),
        {"memcpy of 808 bytes": Contender(lambda: library.copy_808(other, to, rounds), rounds)},
        close=[image.clear, copy.clear])


def _dispatched(write: bool) -> Contest:
    cpu, rounds = Processor("sapphire-rapids"), range(1000)
    registers = {bits.IA32_LBR_CTL: 0}
    index = bits.IA32_LBR_CTL

    def ours() -> None:
        if write:
            for _ in rounds:
                cpu.wrmsr(index, _ALL)
        else:
            for _ in rounds:
                cpu.rdmsr(index)

    def plain() -> None:
        if write:
            for _ in rounds:
                registers.__setitem__(index, _ALL)
        else:
            for _ in rounds:
                registers.__getitem__(index)

    return Contest("accesses", Contender(ours, 1000),
                   {"a dict, no checks": Contender(plain, 1000)})


def rdmsr(setting: Setting) -> Contest:
    """IA32_LBR_CTL, from Python."""
    return _dispatched(False)


def wrmsr(setting: Setting) -> Contest:
    """The same, written, with its checks."""
    return _dispatched(True)


def replayed(
    rows: Rows, ctl: int, event: CountedEvent, n: int | None = None
) -> list[NDArray[np.void]]:
    """Stacks of all samples of a trace in memory, buffer by buffer."""
    replay = Replay(facility(ctl), [event])
    n = len(rows) if n is None else n
    parts, row = [], 0
    while row < n:
        out = SampleBuffer(2048, 32)
        row = replay.run(rows, out, row, n)
        parts.append(out.entries[:out.count])
    return parts


def _replay(setting: Setting, ctl: int) -> Contest:
    n = 1 << (22 if setting.quick else 25)
    columns = streams.columns(n)
    rows, event = Rows(columns), CountedEvent(_PERIOD)

    def ring() -> Callable[[], object]:
        compiled("replay_floor")
        return lambda: replay_ring(columns, n, ALL_CLASSES, _PERIOD)

    return Contest("branches", Contender(lambda: replayed(rows, ctl, event), n),
                   {"C ring": Contender(_or_why(ring), n)})


def replay_all(setting: Setting) -> Contest:
    """A stack of 32 every 10,007 branches, of columns in memory."""
    return _replay(setting, _ALL)


def replay_call_stack(setting: Setting) -> Contest:
    """The same in call-stack mode; the ring keeps no stack."""
    return _replay(setting, _CALL_STACK)


def replay_threads(setting: Setting) -> Contest:
    """Two threads beside one, in call-stack mode."""
    n = 1 << (24 if setting.quick else 26)
    rows, event = Rows(streams.columns(n)), CountedEvent(_PERIOD)

    def threads() -> object:
        return list(run_parallel(Replay(facility(_CALL_STACK), [event]), rows, 0, n, 2))

    return Contest("branches", Contender(threads, n),
                   {"one thread": Contender(lambda: replayed(rows, _CALL_STACK, event), n)})


ROWS: Final = (
    Row("core.record", "record a batch, every class", record_all),
    Row("core.filter", "record a batch, filtered by class and ring", record_filtered),
    Row("core.call-stack", "record a batch in call-stack mode", record_call_stack),
    Row("core.xsaves", "XSAVE component 15", xsaves),
    Row("msr.read", "RDMSR of IA32_LBR_CTL from Python", rdmsr),
    Row("msr.write", "WRMSR of IA32_LBR_CTL from Python", wrmsr),
    Row("replay.all", "replay, 32 branches every 10,007", replay_all),
    Row("replay.call-stack", "replay in call-stack mode", replay_call_stack),
    Row("replay.threads", "replay by two threads", replay_threads),
)
