from typing_extensions import disjoint_base

from pylbr.arbitration.system import Policy

@disjoint_base
class Sessions:
    policy: Policy
