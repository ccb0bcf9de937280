"""MSR_LBR_SELECT: every value against every class, from the manual's tables."""

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE
from lbrcore import BranchClass as C
from lbrcore.config import LbrConfig, Quirk
from lbrcore.reference import ReferenceLbr
from pylbr.cpu import Processor
from tests.manual import IA32_DEBUGCTL, MSR_LBR_SELECT

CLASSES = (C.COND, C.NEAR_REL_CALL, C.NEAR_IND_CALL, C.NEAR_RET, C.NEAR_IND_JMP, C.NEAR_REL_JMP,
           C.FAR_BRANCH)
#: Class -> bits that suppress it. Table 17-12, Sandy Bridge on: near indirect jumps "except near
#: indirect calls and near returns", near relative jumps "except near relative calls".
SANDY_BRIDGE = dict(zip(CLASSES, ({2}, {3}, {4}, {5}, {6}, {7}, {8}), strict=True))
#: Table 17-11, Nehalem: the two have no exceptions (17.8 calls them an enhancement).
NEHALEM = {**SANDY_BRIDGE, C.NEAR_REL_CALL: {3, 7}, C.NEAR_IND_CALL: {4, 6}, C.NEAR_RET: {5, 6}}
TABLE = {"nehalem": NEHALEM, "westmere": NEHALEM, "silvermont": NEHALEM, "airmont": NEHALEM,
         "sandy-bridge": SANDY_BRIDGE, "haswell": SANDY_BRIDGE, "skylake": SANDY_BRIDGE}
SELECT, DEBUGCTL = MSR_LBR_SELECT, IA32_DEBUGCTL


def batch(cpl):
    branches = np.zeros(len(CLASSES), BRANCH_DTYPE)
    branches["from"] = 0x1000 + np.arange(len(CLASSES))
    branches["to"], branches["class"] = 0x2000, CLASSES
    branches["cpl_from"] = branches["cpl_to"] = cpl
    return branches


def wanted(table, select, cpl):
    if select >> (0 if cpl == 0 else 1) & 1:
        return []
    return [cls for cls in CLASSES if not any(select >> bit & 1 for bit in table[cls])]


def found(records):
    return [CLASSES[int(at) - 0x1000] for at in records[::-1] if at]


@pytest.mark.parametrize("name", TABLE)
def test_all_values_and_classes(name):
    for cpl in (0, 3):
        branches = batch(cpl)
        for select in range(512):
            cpu = Processor(name)
            cpu.wrmsr(SELECT, select)
            cpu.wrmsr(DEBUGCTL, 1)
            cpu.record(branches)
            assert found(cpu.records()["from"]) == wanted(TABLE[name], select, cpl), hex(select)


@pytest.mark.parametrize(("quirks", "table"), [(0, SANDY_BRIDGE),
                                               (Quirk.JMPS_INCLUDE_CALLS, NEHALEM)])
def test_the_twin_agrees(quirks, table):
    for select in range(512):
        twin = ReferenceLbr(LbrConfig.legacy(16, quirks=quirks))
        twin.write_ctl(select)
        twin.set_enable(True)
        twin.record(batch(3))
        oldest_first = [entry[0] for entry in [*twin.stack[1:], twin.stack[0]]]
        assert [CLASSES[at - 0x1000] for at in oldest_first if at] == wanted(table, select, 3)


def test_perf_record_of_indirect_calls_on_nehalem():
    """Linux writes 1ACH for -j ind_call: indirect calls and jumps pass."""
    assert wanted(NEHALEM, 0x1AC, 3) == [C.NEAR_IND_CALL, C.NEAR_IND_JMP]


@pytest.mark.parametrize(("select", "cls", "recorded"), [
    (0x1AC, C.NEAR_IND_CALL, True), (0xC0, C.NEAR_RET, False), (0x40, C.NEAR_REL_CALL, True)])
def test_what_was_read_otherwise(select, cls, recorded):
    cpu = Processor("nehalem")
    cpu.wrmsr(SELECT, select)
    cpu.wrmsr(DEBUGCTL, 1)
    cpu.record(batch(3)[[CLASSES.index(cls)]])
    assert bool(cpu.records()["from"].any()) == recorded
