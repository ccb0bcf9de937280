"""Forced contention between host perf and a guest for 32 entries, on the compiled policies.

The guest runs one program; perf opens an event at every micro-step of it in turn, samples it at
every further one, and closes it.  Both directions are held: who shares rightly sees its own and
only that, and a policy with a hole shows what leaks through it.
"""

import pytest

from lbrcore import LbrConfig
from pylbr.verify.explore import Model
from pylbr.verify.models import FEATURES, KINDS
from pylbr.verify.mutants import flaws_of, mutant
from pylbr.verify.properties import names_of
from pylbr.verify.replay import Run
from pylbr.verify.suites import CORRECT

STEP, HOST_BRANCH, SWITCH, ENTER, GUEST_BRANCH, GUEST, EXIT, OPEN, CLOSE, NMI, MIGRATE = range(11)
READ, ENABLE, XSAVES = 1, 2, 6
WHAT = ("nmi", "nmi-branch", "migrate", "xsaves")


class Contest:
    """A guest's program, with perf coming in at micro-step `when`.

    Attributes
    ----------
    shown : list of (way, records)
        All records that the guest got, and by which way.
    samples : list of list of str
    broken : set of str
        Properties.
    """

    def __init__(self, policy, flaws=(), kind="cpu-exclude", when=None, depth=32):
        made = mutant(policy, flaws)
        hardware = (LbrConfig.legacy(depth, linear_width=64, info_mask=0) if made.legacy
                    else LbrConfig(depth=depth, linear_width=64, info_mask=0))
        model = Model(made, hardware, 1, 1, sum(FEATURES[name] for name in WHAT), [KINDS[kind]])
        self.run, self.kind, self.when, self.legacy = Run(model), kind, when, made.legacy
        self.clock, self.opened = 0, False
        self.shown, self.samples, self.broken = [], [], set()

    def can(self, *action):
        return action in self.run.actions()

    def act(self, kind, argument=0):
        self.broken |= set(names_of(self.run.apply((kind, 0, argument))))
        seen = self.run.seen()
        if seen and seen["exposure"] == "sample":
            self.samples.append(seen["records"])
        elif seen:
            self.shown.append((seen["exposure"], seen["records"]))

    def tick(self):
        """Between two micro-steps."""
        self.clock += 1
        if self.when is not None and self.clock >= self.when and not self.opened and (
                self.can(OPEN, 0, KINDS[self.kind])):
            self.opened = True
            self.act(OPEN, KINDS[self.kind])
            self.act(STEP)
        for is_stray in (0, 1):
            if self.opened and self.can(NMI, 0, is_stray):
                self.act(NMI, is_stray)

    def go(self, kind, argument=0):
        """An operation to its end."""
        self.act(kind, argument)
        while self.run.cpu()["frames"]:
            self.tick()
            self.act(STEP)
        self.tick()

    def inside(self):
        """Until the guest runs; the IPI that is due comes as an exit."""
        if (self.when is not None and not self.opened and self.clock + 1 >= self.when
                and self.run.cpu()["guest"]):
            self.go(EXIT)
        while not self.run.cpu()["guest"]:
            self.go(ENTER)

    def outside(self):
        """Until its thread runs in the host."""
        if self.run.cpu()["guest"]:
            self.go(EXIT)

    def guest(self, instruction, times=1):
        for _ in range(times):
            self.inside()
            if instruction == GUEST_BRANCH:
                self.act(GUEST_BRANCH)
                self.tick()
            else:
                self.go(GUEST, instruction)

    def look(self):
        """What the guest can read; of it, what RDMSR returned."""
        if not self.legacy:
            self.guest(XSAVES)
        self.guest(READ)
        return self.shown[-1][1]

    def program(self):
        """40 branches, an exit, host branches of its thread, 5 more; then away and back."""
        self.go(SWITCH, 1)
        self.guest(ENABLE)
        self.guest(GUEST_BRANCH, 40)
        self.look()
        self.outside()
        for _ in range(40):
            self.act(HOST_BRANCH)
        self.guest(GUEST_BRANCH, 5)
        self.look()
        self.outside()
        self.go(SWITCH, 0)
        for _ in range(40):
            self.act(HOST_BRANCH)
            self.tick()
        self.go(SWITCH, 1)
        self.look()
        self.outside()
        self.go(MIGRATE)
        if self.opened:
            self.act(CLOSE)
            self.act(STEP)
        self.guest(GUEST_BRANCH, 3)
        return self.look()

    def leaked(self):
        """The host's records that the guest saw, and the guest's that a sample showed."""
        return ({name for _, records in self.shown for name in records if name.startswith("h")},
                {name for records in self.samples for name in records if name[0] in "ABCD"})


def contests(policy, flaws=(), kind="cpu-exclude"):
    """One for every moment at which perf may come."""
    alone = Contest(policy, flaws, kind)
    alone.program()
    assert alone.clock > 100
    for when in range(1, alone.clock):
        contest = Contest(policy, flaws, kind, when)
        contest.last = contest.program()
        assert contest.opened
        yield contest


@pytest.mark.parametrize("policy", CORRECT)
def test_a_guest_alone_sees_all_of_its_records(policy):
    contest = Contest(policy)
    assert contest.program() == [f"A{n}" for n in range(47, 15, -1)]
    assert not contest.broken and contest.leaked() == (set(), set())


@pytest.mark.parametrize("policy", CORRECT)
def test_guest_and_host_see_their_own(policy):
    """An event that excludes guests: nothing crosses, whenever it comes."""
    whole, sampled = 0, 0
    for contest in contests(policy):
        assert not contest.broken, (contest.when, contest.broken)
        assert contest.leaked() == (set(), set()), contest.when
        ideal = contest.run.ideal(0)
        assert all(got in (want, "-") for got, want in zip(contest.last, ideal, strict=True))
        whole += contest.last == ideal
        sampled = max(sampled, max((len([n for n in records if n != "-"])
                                    for records in contest.samples), default=0))
        if policy != "request":
            assert contest.last == ideal, "lost nothing"
    assert whole and sampled == 32


@pytest.mark.parametrize("policy", ["request", "lease"])
def test_a_host_that_traces_guests_sees_them_and_they_do_not_see_it(policy):
    traced = set()
    for contest in contests(policy, kind="cpu"):
        assert not contest.broken, (contest.when, contest.broken)
        to_guest, to_host = contest.leaked()
        assert not to_guest
        traced |= to_host
    assert len(traced) > 32


@pytest.mark.parametrize(("policy", "flaw", "kind"), [
    ("request", "no-xss-exiting", "cpu-exclude"), ("request", "keep-passthrough", "cpu-exclude"),
    ("request", "restore-loads-ctl", "cpu-exclude"),
    ("mediated", "restore-loads-ctl", "cpu-exclude"),
    ("lease", "no-xss-exiting", "cpu"), ("lease", "restore-loads-ctl", "cpu-exclude"),
    ("arch-lbr-v2-fixed", "raw-data-msrs", "cpu-exclude"),
    ("arch-lbr-v2-fixed", "no-xss-exiting", "cpu-exclude"),
    ("kvm-legacy", None, "cpu-exclude"),
])
def test_a_hole_shows_the_host_to_the_guest(policy, flaw, kind):
    assert flaw is None or flaw in flaws_of(policy)
    leaks = [contest for contest in contests(policy, (flaw,) if flaw else (), kind)
             if contest.leaked()[0]]
    assert leaks
    assert all("P1" in contest.broken for contest in leaks), "and is reported"


@pytest.mark.parametrize(("policy", "flaw"), [
    ("request", "guest-runs-host-ctl"), ("kvm-legacy-designed", None),
])
def test_a_hole_shows_the_guest_to_the_host(policy, flaw):
    leaks = [contest for contest in contests(policy, (flaw,) if flaw else ())
             if contest.leaked()[1]]
    assert leaks and all("P4" in contest.broken for contest in leaks)
