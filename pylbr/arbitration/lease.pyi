from pylbr.arbitration.single_owner import SingleOwner

class Lease(SingleOwner): ...

POLICIES: dict[str, type[Lease]]
