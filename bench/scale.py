"""How far a replay scales: a simulation with costs that are measured here, and a run.

    python -m bench.scale                         10^15 branches on up to 10,000 workers
    python -m bench.scale --run 10000000000       so many branches by two processes, really

The costs are CPU seconds of the very tasks, on a trace of gzip recorded under QEMU, and of
dask.distributed's scheduler and client for tasks that do nothing.  The simulation follows
`pylbr.sample.schedule`: one worker samples from the first part on while the others describe from
the last one on; then all sample, in order, as many parts ahead as there are two of per worker.
Results pass through one client.  --run reads the same trace again and again.
"""

from __future__ import annotations

import argparse
import heapq
import os
import pickle
import resource
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pylbr import trace
from pylbr.bench.child import pylbr
from pylbr.sample import SampleSetup
from pylbr.sample.description import advanced
from pylbr.sample.job import ReplayJob, describe_task, sample_task
from pylbr.sample.sampler import Sampler
from pylbr.sample.schedule import sample_parts
from pylbr.trace.trace import Trace

PERIOD = 1_000_003
ROUNDS = 5
#: Parts that are simulated one by one; more have the rate of these.
SIMULATED = 200_000
NOTHING_TASKS = 300


@dataclass(frozen=True)
class Costs:
    """CPU seconds, and bytes.

    Attributes
    ----------
    describe, sample, known : float
        Per branch: describing, sampling, sampling what is described.
    spread : float
        Standard deviation of the logarithm of a task's time.
    client : float
        Per part: unpickling a description and the state after it.
    task : float
        Per task, of scheduler and client.
    summary : int
        Bytes of a description without its counts.
    trace : float
        Bytes per branch, as the workers read it.
    """

    describe: float
    sample: float
    known: float
    spread: float
    client: float
    task: float
    summary: int
    trace: float


def record(place: Path) -> str:
    """A whole trace of gzip, some 20 million branches."""
    source, target = place / "in.txt", place / "t.lbrt"
    files = sorted(Path(np.__file__).parent.rglob("*.py"))
    source.write_bytes(b"".join(path.read_bytes() for path in files)[:1_000_000])
    command = [*pylbr("record", "--full", "-q", "-o", target), "--", "gzip", "-6", "-c", source]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(target)


def measure(path: str) -> Costs:
    """The costs on this machine: medians of `ROUNDS`."""
    with trace.open(path) as source:
        count = source.count
    setup = SampleSetup.of("branches:u", PERIOD)
    job, state = ReplayJob(path, setup, count, count), Sampler(setup).state()
    description = describe_task(job, 0)
    packed = pickle.dumps(description)
    cells = 0 if description.cells is None else description.cells.nbytes

    def seconds(call):
        found = []
        for _ in range(ROUNDS):
            begin = time.process_time()
            call()
            found.append(time.process_time() - begin)
        return found

    def at_client():
        advanced(setup, state, pickle.loads(packed))

    describing = seconds(lambda: describe_task(job, 0))
    return Costs(
        describe=float(np.median(describing)) / count,
        sample=float(np.median(seconds(lambda: sample_task(job, 0, state)))) / count,
        known=float(np.median(seconds(lambda: sample_task(job, 0, state, description)))) / count,
        spread=float(np.std(np.log(describing))), client=float(np.median(seconds(at_client))),
        task=task_cost(), summary=len(packed) - cells, trace=os.path.getsize(path) / count)


def task_cost() -> float:
    """CPU seconds of scheduler and client, which share a process here, per task."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, memory_limit=0,
                      dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        client.gather(client.map(abs, range(20), pure=False))
        begin = time.process_time()
        client.gather([client.submit(abs, number, pure=False) for number in range(NOTHING_TASKS)])
        return (time.process_time() - begin) / NOTHING_TASKS


@dataclass(frozen=True)
class Outcome:
    """Seconds of both halves, the share of them in which the client works, bytes that it holds."""

    describing: float
    sampling: float
    client: float
    memory: float

    @property
    def seconds(self) -> float:
        return self.describing + self.sampling


def simulate(costs: Costs, branches: float, workers: int, part: float, seed: int = 0) -> Outcome:
    """A replay of so many branches, in parts of `part`."""
    rng = np.random.default_rng(seed)
    parts = max(1, round(branches / part))
    cell = ReplayJob("", SampleSetup.of("branches:u", PERIOD), int(branches), int(part)).cell_rows
    memory = parts * costs.summary + branches / cell * 8
    if workers == 1:
        return Outcome(0.0, parts * part * costs.sample, 0.0, 0.0)
    # The one that samples does its share while the others describe theirs.
    others = (workers - 1) / costs.describe
    described = parts * others / (others + 1 / costs.sample)
    some = min(parts, SIMULATED)
    scale = parts / some

    def factors():
        return np.exp(rng.normal(0, costs.spread, some)).tolist()

    first, busy = _first_half(costs, round(some * described / parts), workers, part, factors())
    second, more = _second_half(costs, some, described / parts, workers, part, factors())
    total = (first + second) * scale
    return Outcome(first * scale, second * scale, (busy + more) * scale / total, memory)


def _first_half(
    costs: Costs, parts: int, workers: int, part: float, factors: list[float]
) -> tuple[float, float]:
    """(seconds, of which the client works): descriptions in any order, through one client."""
    free = [0.0] * min(workers - 1, max(parts, 1))
    client = 0.0
    each = costs.client / 2 + costs.task
    for number in range(parts):
        begin = heapq.heappop(free)
        done = begin + part * costs.describe * factors[number]
        client = max(client, done) + each
        heapq.heappush(free, client)  # it gets the next task when the client has seen this one
    return max(max(free), client), parts * each


def _second_half(
    costs: Costs, parts: int, share: float, workers: int, part: float, factors: list[float]
) -> tuple[float, float]:
    """(seconds, of which the client works): in order, two parts per worker ahead at most."""
    left = round(parts * share)
    free = [0.0] * min(workers, max(left, 1))
    taken: list[float] = []
    client, each = 0.0, costs.client / 2 + costs.task
    for number in range(left):
        ahead = number - 2 * workers
        allowed = taken[ahead] if ahead >= 0 else 0.0
        begin = max(heapq.heappop(free), allowed)
        done = begin + part * costs.known * factors[number]
        heapq.heappush(free, done)
        client = max(client, done) + each
        taken.append(client)
    return (taken[-1] if taken else 0.0), left * each


def table(costs: Costs, branches: float) -> None:
    """Print what comes of several numbers of workers and sizes of parts."""
    print("| branches per part | workers | seconds | times one worker | client busy | it holds |")
    print("|---|---|---|---|---|---|")
    for part in (1e8, 1e9, 1e10):
        alone = simulate(costs, branches, 1, part).seconds
        for workers in (10, 100, 1000, 10_000):
            found = simulate(costs, branches, workers, part)
            print(f"| 10^{round(np.log10(part))} | {workers:,} | {found.seconds:,.0f} | "
                  f"{alone / found.seconds:,.0f} | {found.client:.1%} | "
                  f"{found.memory / 1e9:,.1f} GB |")


# The run


class Repeated(Trace):
    """A trace again and again."""

    def __init__(self, path: str, count: int) -> None:
        self._one = trace.open(path)
        self.path, self.count = self._one.path, count
        self.columns, self.metadata = self._one.columns, self._one.metadata

    def chunks(self, columns=None, start=0):
        length = self._one.count
        turn, inner = divmod(start, length)
        while turn * length < self.count:
            for chunk in self._one.chunks(columns=columns, start=inner):
                chunk.start += turn * length
                yield chunk
            turn, inner = turn + 1, 0

    def read(self, start, stop):
        length, pieces = self._one.count, []
        while start < stop:
            inner = start % length
            end = min(length, inner + stop - start)
            pieces.append(self._one.read(inner, end))
            start += end - inner
        return np.concatenate(pieces)

    def close(self):
        self._one.close()


@dataclass(frozen=True)
class RepeatedJob(ReplayJob):
    """The same, as tasks."""

    def open(self) -> Trace:
        return Repeated(self.path, self.count)


def run(path: str, branches: int) -> None:
    """Replay them by two processes, and print what it took."""
    job = RepeatedJob(path, SampleSetup.of("branches:u", PERIOD), branches)
    begin, samples = time.perf_counter(), 0
    with ProcessPoolExecutor(2) as executor:
        for batch in sample_parts(job, executor, 2):
            samples += len(batch)
    seconds = time.perf_counter() - begin
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in spent)
    most = max(one.ru_maxrss for one in spent) / 1e3
    print(f"{branches:,} branches, {samples:,} samples: {seconds:,.0f} s, {cpu:,.0f} CPU s, at "
          f"most {most:,.0f} MB in a process; load {os.getloadavg()[0]:.1f}")
    assert samples == branches // PERIOD


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--branches", type=float, default=1e15)
    parser.add_argument("--run", type=int, metavar="BRANCHES")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pylbr-scale-") as name:
        path = record(Path(name))
        if args.run:
            run(path, args.run)
            return
        costs = measure(path)
        print(f"describing {costs.describe * 1e9:.1f} ns per branch, sampling "
              f"{costs.sample * 1e9:.1f}, what is described {costs.known * 1e9:.2f}; spread "
              f"{costs.spread:.0%}; at the client {costs.client * 1e6:.0f} us per part, "
              f"{costs.task * 1e6:.0f} us per task; a description {costs.summary:,} bytes and its "
              f"counts; {costs.trace * 8:.2f} bits per branch\n")
        table(costs, args.branches)


if __name__ == "__main__":
    main()
