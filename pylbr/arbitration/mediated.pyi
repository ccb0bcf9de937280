from pylbr.arbitration.single_owner import SingleOwner

class Mediated(SingleOwner): ...

POLICIES: dict[str, type[Mediated]]
