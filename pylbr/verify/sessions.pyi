from typing_extensions import disjoint_base

from pylbr.arbitration.microsteps import Policy

@disjoint_base
class Sessions:
    policy: Policy
