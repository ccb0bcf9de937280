"""Replay of traces; each row beside an alternative in the same run.

``extra_info`` has ns a branch of both sides, their ratio, and the goals beside them.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from bench.conftest import QUICK
from lbrcore import BRANCH_DTYPE, ENTRY_DTYPE, BranchClass, LbrConfig, LbrState
from lbrcore.events import ALL_CLASSES, CountedEvent
from lbrcore.replay import Replay, SampleBuffer
from lbrcore.rows import Rows
from pylbr import trace
from pylbr.bench import streams
from pylbr.bench.floors import replay_ring
from pylbr.bench.rows_core import replayed
from pylbr.cli import main
from pylbr.sample import LbrIndex, SampleSetup, lbr_at
from pylbr.sample.architectural import ProcessorReplay
from tests.manual import RECORD_ALL

N = 1 << (22 if QUICK else 26)
ALL, CALLS_AND_RETURNS, CALL_STACK = RECORD_ALL, 0x380007, 0x38000D
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def columns():
    """2**26 branches: 1.4 GB."""
    return streams.columns(N)


@pytest.fixture(scope="module")
def array(columns):
    """A quarter of them as BRANCH_DTYPE: half a gigabyte."""
    branches = np.zeros(N // 4, BRANCH_DTYPE)
    for name, column in columns.items():
        branches[name] = column[:N // 4]
    branches["cpl_from"] = branches["cpl_to"] = 3
    return branches


@pytest.fixture(scope="module")
def ring():
    """The naive C ring."""
    return replay_ring


@pytest.fixture
def beside(benchmark):
    """Measure `call` beside an alternative, turn by turn in one run, three calls a turn.

    One thread's CPU time, the least of all: what a core takes, on a machine that others use
    too.  ``extra_info`` gets ns a branch of both, their ratio and the goals.
    """
    def least(call, clock, best):
        for _ in range(3):
            start = clock()
            call()
            best = min(best, clock() - start)
        return best

    def run(call, alternative, branches, *, name, rounds=None, goal_ratio=None,
            goal_billions=None, goal_ns=None, clock=time.thread_time):
        ours = other = float("inf")
        for _ in range(rounds or (5 if QUICK else 8)):
            ours = least(call, clock, ours)
            other = least(alternative, clock, other)
        ns = ours / branches * 1e9
        goals = {"goal_ratio": goal_ratio, "goal_billions": goal_billions, "goal_ns": goal_ns}
        benchmark.extra_info.update({
            "branches": branches, "ns": round(ns, 4), "billions_per_second": round(1 / ns, 2),
            f"ns_{name}": round(other / branches * 1e9, 4), "ratio": round(ours / other, 5),
            **{key: goal for key, goal in goals.items() if goal is not None}})
        print(f"\n{benchmark.name}: {ns:.4f} ns, {1 / ns:.2f} billion/s; {name} "
              f"{other / branches * 1e9:.3f} ns, ratio {ours / other:.4f}  "
              + ", ".join(f"{key} {goal}" for key, goal in goals.items() if goal is not None))
        benchmark.pedantic(call, rounds=3, iterations=1)

    return run


@pytest.mark.parametrize(("ctl", "period", "goal"), [
    (ALL, 10_007, 8), (CALLS_AND_RETURNS, 10_007, 8), (ALL, 100_003, 60),
], ids=["all", "calls-returns", "all-rare"])
def test_lazy(beside, columns, ring, ctl, period, goal):
    rows, event = Rows(columns), CountedEvent(period)
    beside(lambda: replayed(rows, ctl, event), lambda: ring(columns, N, ALL_CLASSES, period), N,
           name="C ring", goal_billions=goal)
    if ctl == ALL:
        ours = np.concatenate(replayed(rows, ctl, event))
        assert np.array_equal(ours[1:], ring(columns, N, ALL_CLASSES, period)[1:])


def test_lazy_period_of_a_class(beside, columns, ring):
    rows, returns = Rows(columns), 1 << BranchClass.NEAR_RET
    event = CountedEvent(10_007, classes=returns)
    beside(lambda: replayed(rows, ALL, event), lambda: ring(columns, N, returns, 10_007), N,
           name="C ring", goal_billions=15)
    ours = np.concatenate(replayed(rows, ALL, event))
    assert np.array_equal(ours[1:], ring(columns, N, returns, 10_007)[1:])


def test_lazy_call_stack(beside, columns, ring):
    rows, event = Rows(columns), CountedEvent(10_007)
    beside(lambda: replayed(rows, CALL_STACK, event),
           lambda: ring(columns, N, ALL_CLASSES, 10_007), N, name="C ring", goal_ns=0.5)


def processor(branches, period):
    """The architectural engine: a processor retires every branch."""
    setup = SampleSetup.of("branches", period, branches=branches)
    return ProcessorReplay(setup, [event.counted for event in setup.events])


def retired(replay, array, period):
    """Its samples."""
    out = SampleBuffer(len(array) // period + 2, 32)
    assert replay.run(array, out) == len(array)
    return out


@pytest.mark.parametrize("period", [10_007, 100_003])
@pytest.mark.parametrize("branches", ["any", "stack"])
def test_architectural_against_the_core(beside, array, branches, period):
    """The core stops where the PMIs do.  A PMI takes microseconds of Python, which the longer
    period divides."""
    lbr = SampleSetup(branches=branches).facility()

    def core():
        for first in range(0, len(array), period):
            lbr.record(array[first:first + period])

    replay = processor(branches, period)
    beside(lambda: retired(replay, array, period), core, len(array), name="core record",
           goal_ratio=1.3)


def test_lazy_against_architectural(beside, array):
    rows, event = Rows(array), CountedEvent(10_007)
    replay = processor("any", 10_007)
    beside(lambda: replayed(rows, ALL, event), lambda: retired(replay, array, 10_007),
           len(array), name="architectural")


def numpy_samples(columns, n, period):
    """The same samples by NumPy alone: every step over whole columns."""
    classes = columns["class"][:n]
    recorded = np.flatnonzero(classes != BranchClass.NOT_TAKEN)
    at = np.arange(period - 1, n, period)
    newest = np.searchsorted(recorded, at, side="right") - 1
    rows = recorded[newest[:, None] - np.arange(33)]
    clock = np.cumsum(columns["cycles"][:n], dtype=np.uint64)[rows]
    out = np.empty((len(at), 32), ENTRY_DTYPE)
    rows, cycles = rows[:, :-1], clock[:, :-1] - clock[:, 1:]
    out["from"], out["to"] = columns["from"][rows], columns["to"][rows]
    out["info"] = (
        np.minimum(cycles, 0xFFFF) | np.uint64(1 << 60)
        | np.minimum(classes[rows], 8).astype(np.uint64) << np.uint64(56)
        | columns["flags"][rows].astype(np.uint64) << np.uint64(61))
    return out


def test_lazy_against_numpy(beside, columns):
    n = N // 4
    rows, event = Rows(columns), CountedEvent(10_007)
    ours = np.concatenate(replayed(rows, ALL, event, n=n))
    assert np.array_equal(ours[1:], numpy_samples(columns, n, 10_007)[1:])
    beside(lambda: replayed(rows, ALL, event, n=n), lambda: numpy_samples(columns, n, 10_007), n,
           name="NumPy", rounds=1)


def test_lazy_against_a_deque(beside, columns):
    n, period = 1 << 17, 10_007
    rows, event = Rows(columns), CountedEvent(period)
    names = ("from", "to", "class", "flags", "cycles")
    branches = list(zip(*(columns[name][:n].tolist() for name in names), strict=True))

    def loop():
        ring, since, samples = deque(maxlen=32), 0, []
        for i, (from_, to, cls, flags, cycles) in enumerate(branches, 1):
            since += cycles
            if cls != 6:
                info = flags << 61 | 1 << 60 | min(cls, 8) << 56 | min(since, 0xFFFF)
                ring.append((from_, to, info))
                since = 0
            if i % period == 0:
                samples.append(list(ring))
        return samples

    beside(lambda: replayed(rows, ALL, event, n=n), loop, n, name="deque", rounds=2)


def test_threads(beside, columns):
    from pylbr.sample.parallel import run_parallel

    rows, event = Rows(columns), CountedEvent(10_007, classes=1 << BranchClass.NEAR_RET)

    def parallel():
        lbr = LbrState(LbrConfig())
        lbr.ctl = ALL
        return list(run_parallel(Replay(lbr, [event]), rows, 0, N, os.cpu_count() or 1))

    beside(parallel, lambda: replayed(rows, ALL, event), N, name="one thread",
           clock=time.perf_counter)


@pytest.fixture(scope="module")
def file(array, tmp_path_factory):
    """A container of at most 2**22 branches."""
    path = tmp_path_factory.mktemp("replay") / "trace.arrow"
    with trace.Writer(path) as writer:
        writer.write(array[:1 << 22])
    return path


@pytest.mark.parametrize("verify", [True, False], ids=["verified", "unverified"])
@pytest.mark.parametrize("branches", ["any", "stack"])
def test_look_up_anywhere(benchmark, file, branches, verify):
    """The container's digests are over 16,384 rows a column; 64 rows are needed."""
    setup = SampleSetup(branches=branches)
    with trace.open(file, verify=verify) as source:
        places = iter(np.random.default_rng(4).integers(0, source.count, 1 << 20).tolist())
        if branches == "stack":
            index = LbrIndex(source, setup)
            benchmark(lambda: index.at(next(places)))
        else:
            benchmark(lambda: lbr_at(source, next(places), setup))
    benchmark.extra_info["us"] = round(benchmark.stats.stats.min * 1e6, 1)
    print(f"\n{benchmark.name}: {benchmark.extra_info['us']} us")


def test_command_against_perf_script(benchmark, file, tmp_path):
    """From the file of a trace to perf.data, beside perf's printing of what came out."""
    if shutil.which("perf") is None:
        pytest.skip("perf is not installed")
    out, period = tmp_path / "out.perf.data", 101
    call = [str(file), "-c", str(period), "-j", "any,u", "-o", str(out)]
    benchmark.pedantic(lambda: main(["replay", *call]), rounds=3, iterations=1)
    start = time.perf_counter()
    subprocess.run(["perf", "script", "-i", str(out), "-F", "ip,brstack"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    perf = time.perf_counter() - start
    with trace.open(file) as source:
        entries = source.count // period * 32
    ours = benchmark.stats.stats.min
    benchmark.extra_info.update(
        entries=entries, ours_entries_per_second=round(entries / ours),
        perf_script_entries_per_second=round(entries / perf), ratio=round(ours / perf, 4))
    print(f"\n{benchmark.name}: {entries / ours / 1e6:.1f} million entries a second from trace to "
          f"perf.data, perf script prints {entries / perf / 1e6:.1f}")


MEMORY = """
import sys
import numpy as np
from pylbr.bench.streams import call_tree
from pylbr.sample import SampleSetup, Sampler

n, chunk = int(sys.argv[1]), 1 << 20
classes, cycles = call_tree(1 << 16)
columns = {"class": np.resize(classes, chunk), "cycles": np.resize(cycles, chunk),
           "from": np.arange(chunk, dtype="u8") * 12 + 0x400000}
columns["to"] = columns["from"] + 96
sampler = Sampler(SampleSetup.of(["every-branch", "branch-misses"], 10_007, branches="any"))
samples = 0
for start in range(0, n, chunk):
    columns["from"] += np.uint64(12)
    columns["to"] += np.uint64(12)
    samples += sum(len(batch) for batch in sampler.take(columns, start))
assert samples == (n // chunk * chunk) // 10_007, samples
# Not ru_maxrss, which starts at the parent's.
high = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(high.split()[1]) * 1024)
"""


def test_memory_of_a_billion_branches(benchmark):
    """Made on the fly, sampled by Sampler; resident memory at its highest."""
    n = 1 << (26 if QUICK else 30)
    sizes = []

    def run():
        result = subprocess.run(
            [sys.executable, "-c", MEMORY, str(n)], check=True, capture_output=True, text=True,
            cwd=HERE.parent)
        sizes.append(int(result.stdout))

    benchmark.pedantic(run, rounds=1, iterations=1)
    benchmark.extra_info.update(
        branches=n, megabytes=round(max(sizes) / 1e6), goal_megabytes=512,
        ns=round(benchmark.stats.stats.min / n * 1e9, 3))
    print(f"\n{benchmark.name}: {n:,} branches in {max(sizes) / 1e6:.0f} MB, "
          f"{benchmark.stats.stats.min:.1f} s with start-up and generation")
