from pylbr.verify.explore import Model

class Walk:
    model: Model
    seed: int
    steps: int
    switches: int
    broken: tuple[str, ...]
    def __init__(self, model: Model, seed: int = ...) -> None: ...
    def run(self, steps: int, ignore: int = ...) -> bool: ...
