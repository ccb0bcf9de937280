from typing_extensions import disjoint_base

from pylbr.perf.sample_reader import EventIndex, Found

@disjoint_base
class Scanner:
    def __init__(self, index: EventIndex) -> None: ...
    def scan(self, data: bytes, at: int) -> Found: ...
