"""Plugin of pytest: collect once, then run the tests that reach a mutant in a child for each.

The first child runs all tests without a mutant and notes which mutants each of them reaches, how
long it takes and whether it passes.  A test that fails then is left
out.  `PYLBR_MUTANTS_ORDER` names a JSON file with the numbers, keys and the seconds of tests per
mutant, `PYLBR_MUTANTS_RESULTS` where a line of JSON per mutant goes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import resource
import signal
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

_KEEP = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=_KEEP,
    suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("mutants")  # conftest.py derives its own from it


class _Switch:
    """The file that woven code maps."""

    def __init__(self) -> None:
        with open(os.environ["PYLBR_MUTANTS"], "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def select(self, number: int) -> None:
        self._map[:4] = number.to_bytes(4, "little")

    def forget(self) -> None:
        self._map[8:] = bytes(len(self._map) - 8)

    def reached(self) -> set[int]:
        data = self._map[8:]
        return {number for number in range(len(data)) if data[number]}


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    reports = runtestprotocol(item, nextitem=following, log=False)
    return all(not report.failed for report in reports)


def _baseline(items: list[pytest.Item], switch: _Switch, to: str) -> None:
    found = []
    for item, following in zip(items, [*items[1:], None], strict=True):
        switch.forget()
        start = time.process_time()
        passed = _passes(item, following)
        found.append((item.nodeid, passed, time.process_time() - start, switch.reached()))
    with open(to, "wb") as file:
        pickle.dump(found, file)


def _mutant(items: list[pytest.Item], said: int) -> None:
    for item, following in zip(items, [*items[1:], None], strict=True):
        if not _passes(item, following):
            os.write(said, item.nodeid.encode())
            os._exit(1)
    os._exit(0)


def _child(work, *arguments: object, cpu: float) -> tuple[int, str]:
    """Wait status of a forked child that does `work`, and what it wrote."""
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, int(cpu) + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))
        try:
            work(*arguments, here)
        except BaseException:
            os._exit(2)
        os._exit(0)
    os.close(here)
    end = time.monotonic() + 20 * cpu + 60
    while not (state := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            state = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    with os.fdopen(there, "rb") as file:
        os.set_blocking(file.fileno(), False)
        text = (file.read() or b"").decode(errors="replace")
    with contextlib.suppress(ProcessLookupError):  # what a killed child's tests started
        os.killpg(child, signal.SIGKILL)
    return state[1], text


def _chosen(rows: list[tuple], number: int, most: float) -> list[int]:
    """Places of the tests that reach a mutant, the quickest first, up to `most` seconds."""
    places = sorted((cost, place) for place, (_, passed, cost, reached) in enumerate(rows)
                    if passed and number in reached)
    total, chosen = 0.0, []
    for cost, place in places:
        if chosen and total + cost > most:
            break
        total += cost
        chosen.append(place)
    return chosen


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    order = json.loads(Path(os.environ["PYLBR_MUTANTS_ORDER"]).read_text())
    switch, items = _Switch(), session.items
    switch.select(0)
    with tempfile.NamedTemporaryFile() as kept:
        status, _ = _child(lambda *given: _baseline(*given[:3]), items, switch, kept.name,
                           cpu=3600)
        assert status == 0, f"the tests do not run: {status}"
        rows = pickle.loads(Path(kept.name).read_bytes())
    with open(os.environ["PYLBR_MUTANTS_RESULTS"], "a") as results:
        for name, key in order["mutants"].items():
            number = int(name)
            places = _chosen(rows, number, order["seconds"])
            cost = sum(rows[place][2] for place in places)
            switch.select(number)
            status, by = 0, ""
            if places:  # a mutant that no test reaches survives
                status, by = _child(_mutant, [items[at] for at in places], cpu=3 * cost + 15)
            switch.select(0)
            assert not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 2), "not the tests'"
            by = by or (f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "")
            print(json.dumps({"key": key, "tests": len(places), "killed": status != 0, "by": by}),
                  file=results, flush=True)
    return True
