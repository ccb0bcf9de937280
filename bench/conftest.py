"""Shared by the benchmarks: the C floor, and sizes by PYLBR_BENCH (quick or full)."""

import ctypes
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import lbrcore
from lbrcore import BRANCH_DTYPE

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
def floor(tmp_path_factory):
    """floor.c, compiled, with the argument types set."""
    target = tmp_path_factory.mktemp("floor") / "floor.so"
    subprocess.run(["gcc", "-O3", "-shared", "-fPIC", f"-I{lbrcore.get_include()}",
                    str(HERE / "floor.c"), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.ring_new.restype = pointer
    library.ring_new.argtypes = [ctypes.c_uint64]
    for name in ("ring_plain", "ring_filtered", "ring_branchy"):
        getattr(library, name).argtypes = [pointer, pointer, size]
    library.ring_called.argtypes = [pointer, pointer, size, size]
    library.table_record.argtypes = [pointer, pointer, pointer, size, size]
    library.table_pack.argtypes = [pointer, pointer, pointer, size]
    library.table_unpack.argtypes = [pointer, pointer, pointer, size]
    library.copy_808.argtypes = [pointer, pointer, size]
    library.create.restype = pointer
    library.create.argtypes = [pointer, ctypes.c_uint64]
    return library


@pytest.fixture(scope="session")
def api():
    """Address of the C function table."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(lbrcore._C_API, b"lbrcore._C_API")


def random_branches(n, weights, seed=1):
    """`n` branches with classes drawn by `weights` (class -> weight) from both rings."""
    rng = np.random.default_rng(seed)
    branches = np.zeros(n, BRANCH_DTYPE)
    branches["from"] = rng.integers(1, 1 << 47, n)
    branches["to"] = rng.integers(1, 1 << 47, n)
    p = np.array(list(weights.values()), float)
    branches["class"] = rng.choice([int(c) for c in weights], n, p=p / p.sum())
    branches["cycles"] = rng.integers(1, 30, n)
    branches["instructions"] = rng.integers(1, 12, n)
    branches["cpl_from"] = branches["cpl_to"] = rng.choice([0, 3], n)
    return branches
