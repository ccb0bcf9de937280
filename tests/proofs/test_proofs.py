"""The facility is a shift register, proved of the library's C file; planted faults are found.

`python -m tests.proofs` proves every depth.
"""

import pytest
import z3

from tests.peers.peer_tools import need
from tests.proofs.__main__ import found, library
from tests.proofs.facility import Facility, compiled, prove
from tests.proofs.planted import PLANTED
from tests.proofs.theorems import Theorems

pytestmark = pytest.mark.peer
SHORT = (0, 8), (1, 16)             # (flavour, depth)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def module(source, tmp_path_factory):
    return compiled(source, tmp_path_factory.mktemp("proofs"), need("clang-14"))


@pytest.mark.slow
@pytest.mark.parametrize(("flavour", "depth"), SHORT)
def test_the_facility_is_a_shift_register(module, flavour, depth):
    names = []
    for name, goal in Theorems(module, flavour, depth):
        assert not prove(goal), name
        names.append(name)
    assert len(names) == len(set(names)) == (16, 14)[flavour]


@pytest.mark.parametrize(("flavour", "depth"), SHORT)
def test_what_the_proofs_start_from_exists(module, flavour, depth):
    """A state that fulfils what always holds: else everything would follow from it."""
    facility = Facility(module, flavour, depth)
    for condition in (facility.active, z3.Not(facility.active),
                      z3.And(facility.active, facility.call_stack)):
        solver = z3.SolverFor("QF_ABV")
        solver.add(facility.holds, facility.branch_holds, condition,
                   facility.get("cycles_valid") == 1, facility.get("ler") != 0)
        assert solver.check() == z3.sat


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(source, tmp_path, name):
    assert found(source, tmp_path / "planted", name, need("clang-14"))
