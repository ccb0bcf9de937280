from pylbr.arbitration.system import Policy

GUARDS: dict[str, tuple[int, str]]

class Owned(Policy): ...
