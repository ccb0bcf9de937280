from typing_extensions import disjoint_base

from pylbr.verify.explore import Model

@disjoint_base
class Walk:
    model: Model
    seed: int
    steps: int
    switches: int
    broken: tuple[str, ...]
    def __new__(cls, model: Model, seed: int = ...) -> Walk: ...
    def run(self, steps: int, ignore: int = ...) -> bool: ...
