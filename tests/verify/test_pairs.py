"""P1': pairs of runs with the same guest and two different hosts."""

import random

import pytest

from pylbr.verify.models import Configuration
from pylbr.verify.replay import Run
from pylbr.verify.words import kind

NOISE = {kind(name) for name in ("host-branch", "open", "close", "nmi", "switch")}


class Guest:
    """One run, driven by what guest A does; the host does what its generator says."""

    def __init__(self, configuration, noise, seed):
        self.run = Run(configuration.model())
        self.noise, self.random = noise, random.Random(seed)
        self.seen, self.sessions = [], 0

    def act(self, action):
        self.run.apply(action)
        self.sessions += action[0] == kind("open")
        seen = self.run.seen()
        if seen and seen["guest"]:
            self.seen.append((seen["exposure"], tuple(seen["records"]), seen["control"],
                              seen["cut"]))

    def enter(self):
        """Go on until guest A runs."""
        while True:
            cpu = self.run.cpu()
            if cpu["guest"] and not cpu["frames"]:
                return
            choices = [a for a in self.run.actions() if a[0] in NOISE]
            if choices and self.random.random() < self.noise:
                self.act(self.random.choice(choices))
            elif cpu["frames"]:
                self.act((kind("step"), 0, 0))
            elif cpu["task"] == "vCPU A":
                self.act((kind("enter"), 0, 0))
            else:
                self.act((kind("switch"), 0, 1))


def same(quiet, noisy, short):
    """Equal, but that under the documented exception records may be missing."""
    for one, two in zip(quiet, noisy, strict=True):
        assert (one[0], one[2]) == (two[0], two[2])
        if short:
            assert all(b in (a, "-") for a, b in zip(one[1], two[1], strict=True))
        else:
            assert one == two


@pytest.mark.parametrize("more", [(), ("nested", "vpmi", "xrstors", "reset")],
                         ids=["", "nested, PMIs, reset"])
@pytest.mark.parametrize(("policy", "kinds", "short"), [
    ("mediated", ("cpu-exclude",), False),
    ("lease", ("cpu-exclude",), False),
    ("lease", ("cpu-exclude", "cpu"), True),
    ("request", ("cpu-exclude", "cpu"), True),
], ids=["mediated", "lease, excluded", "lease", "request"])
def test_guests_cannot_tell_what_the_host_does(policy, kinds, short, more):
    doors = ("xsaves",) if short else ("xsaves", "pebs")
    configuration = Configuration(policy, depth=2, guests=1, kinds=kinds, features=(
        "nmi", "write", "depth", *more, *doors))
    reads = sessions = 0
    for seed in range(60):
        schedule = random.Random(seed)
        pair = Guest(configuration, 0.0, seed), Guest(configuration, 0.4, seed)
        for _ in range(60):
            for guest in pair:
                guest.enter()
            choices = [a for a in pair[0].run.actions()
                       if a[0] in (kind("guest-branch"), kind("guest"), kind("exit"))]
            assert set(choices) <= set(pair[1].run.actions())
            action = schedule.choice(choices)
            for guest in pair:
                guest.act(action)
        for guest in pair:
            guest.enter()
        same(pair[0].seen, pair[1].seen, short)
        reads += len(pair[0].seen)
        sessions += pair[1].sessions
        assert pair[0].sessions == 0
    assert reads > 300 and sessions > 100


def test_a_policy_that_steals_fails_the_same_test():
    with pytest.raises(AssertionError):
        test_guests_cannot_tell_what_the_host_does(
            "arch-lbr-v2-fixed", ("cpu-exclude",), False, ())
