"""A program that signals interrupt: its stacks must not look like straight ways into handlers."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from peer_tools import VERSIONS, checked, need, perf2bolt, profgen
from peer_workload import compile_c

from lbrcore import BranchClass
from pylbr.cli import main
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Samples
from pylbr.profile.replayed import replayed
from pylbr.sample import SampleSetup, sample
from pylbr.trace import open as open_trace

pytestmark = [pytest.mark.peer, pytest.mark.slow]

PERIOD = 97


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the program, which has DWARF for all its code, and its whole trace."""
    need("gcc")
    need("qemu-x86_64")
    place = tmp_path_factory.mktemp("signals")
    program = compile_c(
        "signals.c", place / "program", "-gdwarf-4", "-static", "-no-pie", "-nostdlib",
        "-ffreestanding", "-fno-stack-protector", "-fcf-protection=none", "-Wl,--build-id",
    )
    checked(sys.executable, "-m", "pylbr", "record", "-q", "--full", "-o", place / "t.arrow",
            "--", program)
    return place


@pytest.fixture(scope="module")
def data(place):
    path = place / "replayed.perf.data"
    assert main(["replay", str(place / "t.arrow"), "-c", str(PERIOD), "-j", "any,u",
                 "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_consumers_find_nothing_wrong(place, data, version):
    with open_trace(place / "t.arrow") as trace:
        classes = np.concatenate([chunk.column("class") for chunk in trace.chunks()])
    assert np.count_nonzero(classes == BranchClass.INTERRUPT) >= 20
    assert profgen(version, place / "program", place / "prof", perfdata=data) == []
    assert perf2bolt(version, data, place / "program", place / "fdata") == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_stacks_that_go_on_over_a_signal_show(place, version):
    """The warnings would come, were the stacks read as Linux reads them."""
    setup = SampleSetup.of("branches:u", PERIOD, branches="any,u")
    path = place / "linux.perf.data"
    with open_trace(place / "t.arrow") as trace:
        stream = replayed(trace, setup)
        records = [record for record in stream if not isinstance(record, Samples)]
        records += [perf_samples(replace(batch, classes=None), setup.branch_sample_type)
                    for batch in sample(trace, setup)]
        write_perf_data(path, (stream.metadata, records))
    assert profgen(version, place / "program", place / "prof", perfdata=path) != []
