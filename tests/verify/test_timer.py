"""perf's multiplex timer, and events in the ERROR state."""

import pytest

from pylbr.verify.models import KINDS, Configuration
from pylbr.verify.ownership import handovers
from pylbr.verify.suites import CORRECT, EXTENDED
from pylbr.verify.words import kind
from tests.manual import RECORD_ALL
from tests.verify.explored import explored
from tests.verify.guest_run import GuestRun

ANY, ANY_USR = RECORD_ALL, 0x7F0005


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_with_the_timer(policy):
    result = explored(Configuration(policy, depth=1, **{**EXTENDED["timer"], "guests": 1}))
    assert result.complete and not result.broken and result.states > 5_000


class HostRun(GuestRun):
    """perf opens two events while the host's task runs."""

    def __init__(self, policy, *kinds):
        super().__init__(policy, "rotate", "enable", kinds=kinds, events=2)
        self.host()
        self.interrupt("switch")
        for event in kinds:
            self.interrupt("open", KINDS[event])

    def interrupt(self, name, argument=0):
        self.act(name, argument)
        self.finish()

    def can_do(self, name):
        return kind(name) in {of for of, _, _ in self.run.actions()}


@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed"])
def test_rotation_gives_each_flexible_event_its_turn(policy):
    run = HostRun(policy, "cpu-flexible", "cpu-flexible-user")
    controls = []
    for _ in range(4):
        controls.append(run.run.cpu()["control"])
        run.act("host-branch")
        run.interrupt("rotate")
        assert run.run.cpu()["events"] == 1
    assert controls == [ANY, ANY_USR] * 2
    if policy in CORRECT:
        assert not run.broken and run.run.cpu()["records"] == ["-", "-"]


def test_nothing_rotates_without_a_rival():
    assert not HostRun("lease", "cpu-flexible").can_do("rotate")
    assert not HostRun("lease", "cpu-flexible", "cpu-flexible").can_do("rotate")
    assert not HostRun("lease", "cpu-flexible", "cpu-exclude").can_do("rotate")


def test_a_pinned_event_in_error_stays_there_until_it_is_enabled():
    run = HostRun("lease", "cpu-exclude", "cpu")
    assert run.run.cpu()["events"] == 1 and run.can_do("enable")
    run.interrupt("close", 0)
    assert run.run.cpu()["events"] == 0 and run.can_do("enable")
    run.interrupt("enable", 1)
    assert run.run.cpu()["events"] == 1 and not run.can_do("enable") and not run.broken


@pytest.mark.parametrize("policy", CORRECT)
def test_no_steal_by_the_timer(policy):
    changes = handovers(Configuration(
        policy, depth=1, guests=1, features=("rotate", "enable"), events=2,
        kinds=("cpu-flexible", "cpu-flexible-user")))
    assert not [c for c in changes if c[3].startswith("IRQ") and "unowned" not in c[:2]]
    assert not [c for c in changes if c[:2] == ("guest A", "host")]
