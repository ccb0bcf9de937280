from typing_extensions import disjoint_base

from pylbr.perf.sample_reader import Found, SampleLayout

@disjoint_base
class Scanner:
    def __init__(self, layout: SampleLayout) -> None: ...
    def scan(self, data: bytes, at: int) -> Found: ...
