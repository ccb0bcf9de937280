"""CPUID and MSRs of the machine around every modelled processor."""

from __future__ import annotations

import pytest

from pylbr.arch import MODELS
from pylbr.embed.machine import UNKNOWN_MODEL, Machine
from pylbr.embed.platform import CPUID_ROWS
from pylbr.errors import GeneralProtection

INTEL = [name for name, model in MODELS.items() if model.intel]


@pytest.fixture(scope="module", params=[*INTEL, UNKNOWN_MODEL])
def machine(request):
    return Machine(request.param)


def test_leaves_between(machine):
    """Leaves that the machine adds above a processor's own are no repetition of its highest."""
    highest = machine.processor.cpuid(0)[0]
    platform = machine.platform
    most = platform.cpuid(0, 0, list(machine.processor.cpuid(0)))[0]
    assert most >= 0x16
    for leaf in range(highest + 1, most + 3):
        for subleaf in (0, 1):
            out = platform.cpuid(leaf, subleaf, list(machine.processor.cpuid(leaf, subleaf)))
            rows = {row.register: row.value for row in CPUID_ROWS
                    if row.leaf == min(leaf, most) and row.subleaf in (None, subleaf)
                    and row.since <= highest}
            if most > highest:
                assert out == [rows.get(register, 0) for register in range(4)], hex(leaf)
            else:
                assert out == list(machine.processor.cpuid(leaf, subleaf)), hex(leaf)


def test_what_is_announced_is_there(machine):
    """IA32_ARCH_CAPABILITIES where CPUID has it, and only there; machine-check MSRs everywhere."""
    out = machine.platform.cpuid(7, 0, list(machine.processor.cpuid(7, 0)))
    assert bool(out[3] >> 29 & 1) == (machine.processor.model.arch is not None)
    if out[3] >> 29 & 1:
        assert machine.platform.msr(0x10A, None) & 1
        with pytest.raises(GeneralProtection):
            machine.platform.msr(0x10A, 0)
    else:
        with pytest.raises(GeneralProtection):
            machine.platform.msr(0x10A, None)
    # Protection keys live in XSAVE's component 9; Linux 6.12 saves them with every signal.
    assert bool(out[2] >> 3 & 3) == bool(machine.processor.model.xcr0 >> 9 & 1)
    assert machine.platform.msr(0x179, None) & 0xFF == 0  # no banks
    assert machine.platform.msr(0x17A, 0xFF) == 7


def test_saved_values(machine):
    """What `state` returns is loaded again; rows of another processor are refused."""
    machine.platform.load(machine.platform.state())
    other = Machine("nehalem" if machine.processor.model.arch else "sapphire-rapids")
    with pytest.raises(ValueError, match="no state"):
        machine.platform.load(other.platform.state())
