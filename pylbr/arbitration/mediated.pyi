from pylbr.arbitration.single_owner import SingleOwner

class Mediated(SingleOwner):
    def __init__(self, lazy: bool = ...) -> None: ...
class MediatedMerged(SingleOwner):
    def __init__(self, lazy: bool = ...) -> None: ...

POLICIES: dict[str, type[SingleOwner]]
