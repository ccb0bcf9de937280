from pylbr.arbitration.single_owner import SingleOwner

class Request(SingleOwner): ...

POLICIES: dict[str, type[Request]]
