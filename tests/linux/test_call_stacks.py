"""Call stacks that a Linux guest leaves in the LBRs while other tasks run, under a host's eyes.

Linux writes the LBRs of a task back only if another task of its own has used them.  A policy that
releases the LBRs of a guest while it has them off lets the host's records in, or loses the stack.
"""

from __future__ import annotations

import pytest

from pylbr.embed.contention import Contention, read_script
from tests.linux.branch_check import stacks
from tests.linux.programs import build

pytestmark = pytest.mark.peer

COMMAND = ("mount -o bind /dev/null /proc/kallsyms; (while :; do :; done) & "
           "perf record -q -BN --call-graph lbr -e branches:u -c 5003 ./calls 30000; kill $!")
OTHERS = ("at 1000 open pinned exclude-guest\nevery 20011 switch 0\nevery 20011 switch 0\n"
          "every 20011 branches 16\n")


@pytest.fixture(scope="module")
def beside(linux, tmp_path_factory):
    """The recording in a guest beside a host: perf.data, entries of its stacks, contention."""
    folder = tmp_path_factory.mktemp("calls")
    program = build("calls", folder)

    def recorded(policy, points):
        (folder / "script").write_text(f"policy {policy}\n{points}")
        contention = Contention(read_script(folder / "script"))
        result, _, _ = linux.run(COMMAND, {"calls": program}, contention=contention)
        data = result.files["perf.data"]
        (folder / "perf.data").write_bytes(data)
        return data, sum(map(len, stacks(folder / "perf.data"))), contention

    return recorded


@pytest.fixture(scope="module")
def alone(beside):
    return beside("lease", "")


def test_a_lease_changes_nothing(beside, alone):
    data, entries, contention = beside("lease", OTHERS)
    assert data == alone[0] and entries > 500 and contention.leaked == 0


@pytest.mark.parametrize(("policy", "leaks"), [("arch-lbr-v2", True), ("request", False)])
def test_a_policy_that_releases_loses_the_stack(beside, alone, policy, leaks):
    """Under the series of 2022 the guest's kernel also reads the host's records; it drops them,
    since no code of its own is at their addresses."""
    _, entries, contention = beside(policy, OTHERS)
    assert entries < alone[1] / 2
    assert (contention.leaked > 100) == leaks
