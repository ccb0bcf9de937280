"""States that differ in the numbering of processors alone are one state of a search."""

import random

import pytest

from pylbr.arbitration import POLICIES
from pylbr.verify.models import Configuration
from pylbr.verify.replay import Run
from pylbr.verify.suites import EXTENDED, of_legacy

FEATURES = ("nmi", "nmi-branch", "migrate", "write", "xsaves", "fault", "nested", "vpmi", "pebs",
            "rotate", "enable")
KINDS = ("cpu-exclude", "cpu", "cpu-pebs", "task-stack", "cpu-flexible")


@pytest.mark.parametrize("policy", POLICIES)
def test_the_mirror_image_of_a_run_has_the_same_states(policy):
    legacy = policy.startswith("kvm-legacy")
    chosen = random.Random(policy)
    model = Configuration(policy, depth=2, cpus=2, guests=3, kinds=KINDS, events=2,
                          features=of_legacy(FEATURES) if legacy else FEATURES).model()
    for _ in range(20):
        one, two = Run(model), Run(model)
        for _ in range(60):
            kind, cpu, argument = chosen.choice(one.actions())
            broken = one.apply((kind, cpu, argument))
            assert two.apply((kind, 1 - cpu, argument)) == broken
            assert one.fingerprint() == two.fingerprint()


def test_a_run_and_its_mirror_image_are_two_where_numbers_differ():
    """The comparison is not blind: other actions lead to other states."""
    model = Configuration("lease", depth=1, **EXTENDED["cpus"]).model()
    one, two = Run(model), Run(model)
    one.apply(next(a for a in one.actions() if a[1] == 0))
    two.apply(next(a for a in reversed(two.actions()) if a[1] == 1))
    assert one.fingerprint() != two.fingerprint()
