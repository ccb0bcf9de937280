"""Shared by the benchmarks: the C floor, and sizes by PYLBR_BENCH (quick or full)."""

import os
import time
from pathlib import Path

import pytest

from pylbr.bench import floors
from pylbr.bench.floors import compiled
from tests import once

HERE = Path(__file__).parent
QUICK = os.environ.get("PYLBR_BENCH", "full") == "quick"


def best_of(call, rounds):
    """Seconds of the quickest of `rounds` calls: on a shared machine the one to compare."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


@pytest.fixture(scope="session", autouse=True)
def _directory_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    once.directory = tmp_path_factory.getbasetemp()


@pytest.fixture
def versus(benchmark):
    """Measure `call` beside an alternative, turn by turn in one run.

    ``extra_info`` gets the ns an item of both and their ratio; `limit` is the goal that the
    ratio is to be compared with.
    """
    def run(call, alternative, items, *, name, limit=None, rounds=None):
        rounds = rounds or (20 if QUICK else 100)
        ours = other = float("inf")
        for _ in range(5):
            ours = min(ours, best_of(call, rounds))
            other = min(other, best_of(alternative, rounds))
        benchmark.extra_info.update({
            "items": items, "ns": round(ours / items * 1e9, 4),
            f"ns_{name}": round(other / items * 1e9, 4), "ratio": round(ours / other, 4),
            "goal": limit,
        })
        print(f"\n{benchmark.name}: {ours / items * 1e9:.3f} ns, {name} "
              f"{other / items * 1e9:.3f} ns, ratio {ours / other:.3f}"
              + (f" (goal {limit})" if limit else ""))
        benchmark.pedantic(call, rounds=5, iterations=1)

    return run


@pytest.fixture(scope="session")
def floor():
    """floor.c of the suite, compiled, with the argument types set."""
    return compiled("floor")


@pytest.fixture(scope="session")
def api():
    """Address of the C function table."""
    return floors.api()
