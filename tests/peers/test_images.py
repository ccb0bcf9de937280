"""Processes that execute other programs, and children: consumers look neither at time nor FORK."""

from __future__ import annotations

import sys

import pytest
from peer_tools import VERSIONS, checked, fdata_edges, need, perf2bolt, profgen, totals

from tests.record.conftest import PROGRAMS

pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two programs whose different code lies at the same addresses."""
    place = tmp_path_factory.mktemp("images")
    need("qemu-x86_64")
    for name, function, rounds, more in (
        ("first", "hot_one", 300000, ()), ("second", "warm_two", 50000, ("-DSECOND",)),
    ):  # fmt: skip
        checked(need("gcc"), "-O1", "-no-pie", "-gdwarf-4", "-Wl,--emit-relocs", *more,
                f"-DWORK={function}", f"-DROUNDS={rounds}", "-o", place / name,
                PROGRAMS / "images.c")  # fmt: skip
    return place


def record(place, name, *command):
    out = place / f"{name}.data"
    checked(sys.executable, "-m", "pylbr", "record", "-q", "-c", 1009, "-o", out, "--", *command)
    return out


@pytest.mark.parametrize("version", VERSIONS)
def test_bolt_sees_each_program_alone(place, version):
    data = record(place, "exec", place / "first", "exec", place / "second")
    for name, function in (("first", "hot_one"), ("second", "warm_two")):
        fdata = place / f"{name}.{version}.fdata"
        assert perf2bolt(version, data, place / name, fdata) == 0
        hottest = max(fdata_edges(fdata).items(), key=lambda edge: edge[1][1])
        assert hottest[0][0] == function


@pytest.mark.parametrize("version", VERSIONS)
def test_profgen_counts_what_a_child_does(place, version):
    counts = []
    for words in ((), ("fork",)):
        data = record(place, f"profgen{len(words)}", place / "first", *words)
        out = place / "prof"
        profgen(version, place / "first", out, perfdata=data)
        counts.append(totals(out.read_text())["hot_one"])
    assert counts[1] == pytest.approx(counts[0], rel=0.03)
