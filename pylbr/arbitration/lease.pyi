from pylbr.arbitration.single_owner import SingleOwner

class Lease(SingleOwner):
    def __init__(self, lazy: bool = ...) -> None: ...

POLICIES: dict[str, type[Lease]]
