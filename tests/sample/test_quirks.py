"""What recorded samples of single processors show besides, against a plain twin."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE
from pylbr.arch.choices import SKYLAKE_DOUBLED, SKYLAKE_STACKS
from pylbr.arch.models import MODELS
from pylbr.errors import ConfigurationError
from pylbr.sample import Sampler, SampleSetup
from pylbr.sample.quirks import is_doubled
from tests.replay.strategies import columns, traces

MASK = (1 << 64) - 1


def plainly_doubled(time, seed):
    """splitmix64, in Python's integers."""
    z = (seed + (time + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return (z ^ (z >> 31)) % SKYLAKE_STACKS < SKYLAKE_DOUBLED


def samples(setup, batch, cuts, threads=1):
    sampler = Sampler(setup, threads=threads)
    return [
        (int(b.time[i]), None if b.hw_idx is None else int(b.hw_idx[i]), b.stack(i).tolist(),
         b.classes[int(b.starts[i]):int(b.starts[i] + b.nr[i])].tolist())
        for first, last in zip(cuts, cuts[1:], strict=False)
        for b in sampler.take(columns(batch[first:last]), first) for i in range(len(b))
    ]  # fmt: skip


@given(st.integers(0, MASK), st.lists(st.integers(0, MASK), min_size=1))
def test_the_draw_is_that_of_its_twin(seed, times):
    found = is_doubled(np.array(times, "u8"), seed).tolist()
    assert found == [plainly_doubled(time, seed) for time in times]


def test_the_share_is_the_recorded_one():
    share = is_doubled(np.arange(1_000_000, dtype="u8"), 1).mean()
    assert share == pytest.approx(966 / 3732, abs=0.002)


@given(
    traces(400), st.sampled_from(["any,u", "any,hw_index", "any_call"]), st.integers(1, 9),
    st.integers(0, MASK), st.sampled_from(["lazy", "architectural"]), st.data(),
)
@settings(max_examples=60, deadline=None)
def test_some_samples_have_their_newest_record_twice(batch, words, period, seed, engine, data):
    """Whatever the chunks; everything else is as without the quirk."""
    plain = SampleSetup.of("every-branch", period, model="skylake", branches=words, seed=seed)
    quirky = replace(plain, quirks=("doubled-newest",), engine=engine)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(batch)), max_size=2))), len(batch)]
    expected = []
    for time, top, stack, classes in samples(plain, batch, [0, len(batch)]):
        if plainly_doubled(time, seed) and stack:
            stack, classes = ([old[0], *old][:32] for old in (stack, classes))
            top = None if top is None else (top + 1) % 32
        expected.append((time, top, stack, classes))
    assert samples(quirky, batch, cuts) == expected


def test_threads_change_nothing():
    batch = np.zeros(70_000, BRANCH_DTYPE)
    batch["from"] = np.arange(len(batch)) * 16 + 0x400000
    batch["to"] = batch["from"] + 64
    batch["cpl_from"] = batch["cpl_to"] = 3
    setup = SampleSetup.of(
        "branches:u", 97, model="skylake", branches="any,u", quirks=("doubled-newest",))
    alone, together = (samples(setup, batch, [0, len(batch)], threads) for threads in (1, 3))
    assert alone == together
    doubled = sum(stack[0] == stack[1] for _, _, stack, _ in alone)
    assert 0.2 < doubled / len(alone) < 0.32


@pytest.mark.parametrize(("model", "branches", "quirk"), [
    ("sapphire-rapids", "any", "doubled-newest"), ("skylake", "stack", "doubled-newest"),
    ("skylake", "any", "doubled"), ("zen4", "any", "doubled-newest"),
    ("ice-lake", "any", "doubled-newest"),
])
def test_it_is_had_only_where_it_was_recorded(model, branches, quirk):
    with pytest.raises(ConfigurationError, match=f"quirk '{quirk}'"):
        SampleSetup.of("branches", 9, model=model, branches=branches, quirks=(quirk,))
    assert [name for name, m in MODELS.items() if getattr(m.legacy, "doubles_newest", False)] == [
        "skylake"]
