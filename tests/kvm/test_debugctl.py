"""IA32_DEBUGCTL of guests: every bit, for every offer, against a table."""

from itertools import product

import pytest

from pylbr.errors import GeneralProtection
from pylbr.kvm.debugctl import GuestDebugctl

#: Bit -> which offer keeps it; "drop": without an offer it is dropped, not refused.
BITS = {0: ("lbr", "drop"), 1: (None, "drop"), 2: ("bus_lock", "fault"), 11: ("lbr", "fault"),
        15: ("rtm", "fault")}
OFFERS = [dict(zip(("lbr", "bus_lock", "rtm"), bits, strict=True))
          for bits in product((False, True), repeat=3)]


@pytest.mark.parametrize("offer", OFFERS, ids=str)
def test_every_bit(offer):
    guest = GuestDebugctl(**offer)
    for bit in range(64):
        keeps, otherwise = BITS.get(bit, (None, "fault"))
        if keeps and offer[keeps]:
            assert guest.write(1 << bit) == 1 << bit
        elif otherwise == "drop":
            assert guest.write(1 << bit) == 0
        else:
            with pytest.raises(GeneralProtection):
                guest.write(1 << bit)


@pytest.mark.parametrize("offer", OFFERS, ids=str)
def test_freeze_in_smm_is_the_hosts(offer):
    """In the field while the host has it, never in what the guest reads, never the guest's."""
    guest = GuestDebugctl(**offer)
    own = guest.supported
    for host in (0, 1 << 14, 1 << 14 | 1, 1):
        field = guest.field(own, host)
        assert field == own | host & 1 << 14
        assert guest.read(field) == own
    with pytest.raises(GeneralProtection):
        guest.write(1 << 14)


def test_l1_may_set_it_in_vmcs12_as_long_as_the_quirk_is_on():
    guest = GuestDebugctl()
    assert guest.vmcs12(1 << 14 | 1) == 1
    with pytest.raises(GeneralProtection):
        guest.vmcs12(1 << 14 | 1, allow_freeze_in_smm=False)
    with pytest.raises(GeneralProtection):
        guest.vmcs12(1 << 15)
    assert GuestDebugctl(rtm=True).vmcs12(1 << 15) == 1 << 15
