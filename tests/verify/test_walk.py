"""Random walks at the real depth."""

import pytest

from lbrcore.config import LbrConfig
from pylbr.arbitration import make_policy
from pylbr.verify.explore import Model
from pylbr.verify.models import FEATURES, KINDS
from pylbr.verify.suites import CORRECT
from pylbr.verify.walk import Walk


def walk(policy, *flaws, seed=1, depth=32):
    model = Model(make_policy(policy, flaws), LbrConfig(depth=depth, linear_width=64, info_mask=0),
                  2, 4, sum(FEATURES.values()), list(KINDS.values()), 2)
    return Walk(model, seed)


@pytest.mark.parametrize("policy", CORRECT)
def test_nothing_breaks_at_depth_32_with_four_guests(policy):
    run = walk(policy)
    assert run.run(1_000_000), run.broken
    assert run.steps == 1_000_000 and run.switches > 1_000


@pytest.mark.parametrize(("policy", "flaw"), [
    ("request", "no-pause-clear"), ("mediated", "drop-ctl"), ("lease", "silent-cut"),
    ("lease", "wipe-by-depth"),
])
def test_a_walk_is_not_blind(policy, flaw):
    run = walk(policy, flaw)
    assert not run.run(1_000_000)
    assert run.broken and run.steps < 1_000_000


def test_same_seed_same_walk():
    one, two = (walk("lease", "silent-cut", seed=9) for _ in range(2))
    one.run(10**6), two.run(10**6)
    assert (one.steps, one.switches, one.broken) == (two.steps, two.switches, two.broken)
