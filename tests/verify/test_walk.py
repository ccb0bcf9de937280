"""Random walks at the real depth."""

import pytest

from lbrcore.config import LbrConfig
from pylbr.arbitration import make_policy
from pylbr.errors import ConfigurationError
from pylbr.verify.explore import Model
from pylbr.verify.models import FEATURES, KINDS
from pylbr.verify.mutants import mutant
from pylbr.verify.suites import CORRECT
from pylbr.verify.walk import Walk
from pylbr.verify.walks import everything


def walk(policy, *flaws, seed=1):
    return Walk(everything(policy, flaws), seed)


@pytest.mark.parametrize("policy", CORRECT)
def test_nothing_breaks_at_depth_32_with_four_guests(policy):
    run = walk(policy)
    assert run.run(1_000_000), run.broken
    assert run.steps == 1_000_000 and run.switches > 1_000


@pytest.mark.parametrize(("policy", "flaw"), [
    ("request", "no-pause-clear"), ("mediated", "drop-ctl"), ("lease", "silent-cut"),
    ("lease", "wipe-by-depth"), ("lease", "ack-by-host"), ("lease", "silent-stack"),
    ("request", "guest-pebs-lbrs"), ("request", "nested-no-controls"), ("mediated", "drop-frozen"),
    ("mediated", "reset-keeps-records"),
])
def test_a_walk_is_not_blind(policy, flaw):
    """A million actions find most flaws from any seed, `silent-stack` from four seeds of five."""
    for seed in range(1, 11):
        run = walk(policy, flaw, seed=seed)
        if not run.run(1_000_000):
            break
    assert run.broken and run.steps < 1_000_000


def test_same_seed_same_walk():
    one, two = (walk("lease", "silent-cut", seed=9) for _ in range(2))
    one.run(10**6), two.run(10**6)
    assert (one.steps, one.switches, one.broken) == (two.steps, two.switches, two.broken)


@pytest.mark.parametrize("depth", [8, 16, 24])
def test_lease_lets_guests_have_another_depth(depth):
    model = Model(make_policy("lease"), LbrConfig(linear_width=64, info_mask=0), 2, 3,
                  sum(FEATURES.values()), list(KINDS.values()), 2, depth)
    run = Walk(model, depth)
    assert run.run(500_000), run.broken
    model = Model(mutant("lease", ["keep-depth"]), LbrConfig(linear_width=64, info_mask=0),
                  1, 1, FEATURES["nmi"], [KINDS["cpu-exclude"]], 1, depth)
    # Left alone, the host soon has the guest's depth for good: only a walk's start shows it.
    assert not all(Walk(model, seed).run(1_000) for seed in range(1, 10))


def test_other_policies_do_not():
    with pytest.raises(ConfigurationError, match="offers 32"):
        Model(make_policy("request"), LbrConfig(linear_width=64), guest_depth=8)
    with pytest.raises(ConfigurationError, match="guest depth 7"):
        Model(make_policy("lease"), LbrConfig(linear_width=64), guest_depth=7)
