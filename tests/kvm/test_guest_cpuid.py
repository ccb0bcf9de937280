"""Guest CPUID, right and wrong, in every combination."""

from itertools import product

import pytest

from lbrcore.config import LbrConfig
from pylbr.errors import ConfigurationError, GeneralProtection
from pylbr.kvm.guest_cpuid import GuestCpuid, Host, offer
from tests.manual import IA32_LBR_CTL, IA32_LBR_DEPTH

ARCH = Host(LbrConfig(), model=0x8F, lbr_format=0x3F)
PLAIN = Host(LbrConfig(depth_bitmap=0x08, ctl_mask=0x7F0001), model=0x8F, lbr_format=0x3F)
SKYLAKE = Host(LbrConfig.legacy(32), model=0x5E, lbr_format=5)
NONE = Host(None, model=0x0F)
HOSTS = {"arch": ARCH, "no filters": PLAIN, "skylake": SKYLAKE, "none": NONE}


def expected(host, guest, any_depth):
    """The rules as a table of refusals: (condition, refused)."""
    fmt = guest.lbr_format if guest.pdcm else 0
    is_arch = host in (ARCH, PLAIN)
    top = {ARCH: 0x08, PLAIN: 0x08}.get(host, 0)
    bitmap = {ARCH: 0x0F, PLAIN: 0x08}.get(host, 0) if any_depth else top
    refused = (
        fmt != 0 and guest.pmu_version == 0,
        fmt not in (0, host.lbr_format),
        fmt != 0 and guest.model != host.model,
        guest.arch_lbr and not is_arch,
        guest.arch_lbr and (guest.depth_bitmap == 0 or guest.depth_bitmap | bitmap != bitmap),
        guest.arch_lbr and host is PLAIN and guest.filters & 0b101 != 0,
    )
    if any(refused):
        return "refused"
    if guest.arch_lbr:
        return "arch"
    return "legacy" if host is SKYLAKE and fmt == 5 else "nothing"


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("any_depth", [False, True])
def test_every_combination(name, any_depth):
    host, outcomes = HOSTS[name], set()
    for values in product((0x8F, 0x5E), (False, True), (0, 1, 2, 8, 0x0C, 0x0F, 0x10, 0x80),
                          range(8), (False, True), (0, 3, 5, 0x3F), (0, 2, 4)):
        guest = GuestCpuid(*values)
        want = expected(host, guest, any_depth)
        try:
            got = offer(host, guest, any_depth=any_depth)
            outcome = "arch" if got.depths else "legacy" if got.legacy else "nothing"
        except ConfigurationError:
            outcome = "refused"
        assert outcome == want, guest
        outcomes.add(outcome)
    assert "refused" in outcomes and "nothing" in outcomes
    assert len(outcomes) == (2 if name == "none" else 3)


@pytest.mark.parametrize("filters", range(8))
def test_access_follows_cpuid(filters):
    """Every bit of IA32_LBR_CTL, every value of DEPTH, every record."""
    got = offer(ARCH, GuestCpuid(0x8F, True, 0x0A, filters, True, 0x3F, 4), any_depth=True)
    offered = {0} | ({1, 2} if filters & 1 else set()) | (
        set(range(16, 23)) if filters & 2 else set()) | ({3} if filters & 4 else set())
    for bit in range(64):
        if bit in offered:
            got.check(IA32_LBR_CTL, 1 << bit)
        else:
            with pytest.raises(GeneralProtection):
                got.check(IA32_LBR_CTL, 1 << bit)
    for depth in range(70):
        if depth in (16, 32):
            got.check(IA32_LBR_DEPTH, depth)
        else:
            with pytest.raises(GeneralProtection):
                got.check(IA32_LBR_DEPTH, depth)
    for base, i, depth in product((0x1200, 0x1500, 0x1600), range(32), (16, 32)):
        for value in (None, 1):
            if i < depth:
                got.check(base + i, value, depth)
            else:
                with pytest.raises(GeneralProtection):
                    got.check(base + i, value, depth)


def test_a_guest_without_the_bit_reaches_nothing():
    got = offer(ARCH, GuestCpuid(0x8F))
    for index, value in product((IA32_LBR_CTL, IA32_LBR_DEPTH, 0x1200, 0x1500, 0x1600), (None, 0)):
        with pytest.raises(GeneralProtection):
            got.check(index, value)


def test_refusals_say_what_is_wrong():
    with pytest.raises(ConfigurationError, match="1CH:EAX"):
        offer(ARCH, GuestCpuid(0x8F, True, 0x01))
    with pytest.raises(ConfigurationError, match="EDX.19"):
        offer(SKYLAKE, GuestCpuid(0x5E, True, 0x08))
    with pytest.raises(ConfigurationError, match="neither 0 nor the host's 0x5"):
        offer(SKYLAKE, GuestCpuid(0x5E, lbr_format=4))
