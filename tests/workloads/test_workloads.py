"""Recorded workloads, and streams that are drawn from them."""

import hashlib
from itertools import islice

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr import workloads
from pylbr.errors import CommandError


def rows_of(name):
    with workloads.recorded(name) as trace:
        return trace.read(0, trace.count)


@pytest.mark.parametrize("name", workloads.NAMES)
def test_recorded_ones_state_where_they_are_from(name):
    with workloads.recorded(name) as trace:
        assert trace.count > 500_000
        told = trace.metadata.provenance
        assert {"program", "recorder", "rows"} <= set(told)
        assert not any("/tmp" in module.path for module in trace.metadata.modules)


def test_an_unknown_name():
    with pytest.raises(CommandError, match="there are cpp, gzip"):
        workloads.recorded("emacs")


def test_the_same_seed_gives_the_same_branches():
    found = [hashlib.sha256(np.concatenate(list(islice(workloads.stream("xz", seed, 5000), 4)))
                            .tobytes()).hexdigest() for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    large = np.concatenate(list(islice(workloads.stream("xz", 1, 20_000), 1)))
    assert hashlib.sha256(large.tobytes()).hexdigest() == found[0]


@pytest.mark.parametrize("name", ["perl", "xz"])
def test_a_stream_is_a_walk_that_the_program_could_take(name):
    """Each branch is of the recorded program, after one that it followed there; returns match."""
    rows = rows_of(name)
    drawn = np.concatenate(list(islice(workloads.Model(rows).stream(3), 4)))
    assert drawn.dtype == BRANCH_DTYPE
    steps = {(before, *after) for before, *after in zip(
        rows["to"][:-1].tolist(), rows["from"][1:].tolist(), rows["to"][1:].tolist(),
        rows["class"][1:].tolist(), strict=True)}
    for step in zip(drawn["to"][:-1].tolist(), drawn["from"][1:].tolist(),
                    drawn["to"][1:].tolist(), drawn["class"][1:].tolist(), strict=True):
        assert step in steps
    stack = []
    for kind, source, target in zip(drawn["class"].tolist(), drawn["from"].tolist(),
                                    drawn["to"].tolist(), strict=True):
        if kind in (BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL):
            stack.append(source)
        elif kind == BranchClass.NEAR_RET and stack:
            assert 0 < target - stack.pop() <= 15


@pytest.mark.parametrize("name", workloads.NAMES)
def test_streams_have_the_statistics_of_the_recording(name):
    rows = rows_of(name)
    # As many: once through all phases of the program.
    drawn = np.concatenate(list(islice(workloads.Model(rows).stream(1), -(-len(rows) >> 16))))
    real, other = workloads.statistics_of(rows), workloads.statistics_of(drawn)
    for kind in set(real.classes) | set(other.classes):
        assert abs(real.classes.get(kind, 0) - other.classes.get(kind, 0)) < 0.02, kind
    assert other.instructions == pytest.approx(real.instructions, rel=0.05)
    assert other.loops[1] == pytest.approx(real.loops[1], rel=0.5)
    assert other.depth[0] == pytest.approx(real.depth[0], abs=1)
    assert other.targets == pytest.approx(real.targets, rel=0.15)
    assert other.entropy == pytest.approx(real.entropy, abs=0.04)


def test_statistics_of_a_loop():
    rows = np.zeros(40, BRANCH_DTYPE)
    rows["from"], rows["to"] = 0x401010, 0x401000
    rows["class"][9::10] = BranchClass.NOT_TAKEN
    rows["instructions"] = 4
    found = workloads.statistics_of(rows)
    assert found.loops == (9, 9, 9) and found.taken == 0.9 and found.sites == 1
    assert found.entropy == pytest.approx(0.469, abs=0.001) and found.depth == (0, 0)
    with pytest.raises(ValueError, match="no branches"):
        workloads.statistics_of(rows[:0])


def test_branches_that_never_repeat_make_no_model():
    rows = np.zeros(10, BRANCH_DTYPE)
    rows["from"], rows["to"] = np.arange(10) * 64, np.arange(10) * 64 + 32
    with pytest.raises(ValueError, match="never come back"):
        workloads.Model(rows)
    with pytest.raises(ValueError, match="no branches"):
        workloads.Model(rows[:0])


def test_arrays_without_rows_are_refused():
    with pytest.raises(ValueError, match="chunk: must be at least 1, not 0"):
        next(workloads.stream("gzip", seed=1, chunk=0))
