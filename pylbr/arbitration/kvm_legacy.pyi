from collections.abc import Iterable

from pylbr.arbitration.vlbr import Vlbr

class KvmLegacy(Vlbr):
    def __init__(self, flaws: Iterable[str] = ..., designed: bool = ...) -> None: ...
