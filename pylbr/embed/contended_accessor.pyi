from collections.abc import Callable
from typing import Any, final

from pylbr.arch.register import MsrRegister
from pylbr.cpu.msr.values import Msrs
from pylbr.embed.contended_cpu import ContendedCpu

KINDS: dict[str, int]
LEGACY_KINDS: dict[str, int]

@final
class ContendedAccessor:
    def __init__(
        self, cpu: ContendedCpu, kind: int, msrs: Msrs, read: Callable[[Msrs, MsrRegister], int],
        write: Callable[[Msrs, MsrRegister, int], None],
    ) -> None: ...
    def read(self, msrs: Msrs, register: MsrRegister) -> int: ...
    def write(self, msrs: Msrs, register: MsrRegister, value: int) -> None: ...

__test__: dict[str, Any]
