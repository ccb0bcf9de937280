from pylbr.arbitration.microsteps import Policy

GUARDS: dict[str, tuple[int, str]]

class SingleOwner(Policy): ...
