from typing import final

from pylbr.x86.blocks import BlockRecorder

@final
class TimeStamp:
    idle: int
    offset: int
    def __new__(
        cls, recorder: BlockRecorder, write: int, registers: tuple[int, int, int]
    ) -> TimeStamp: ...
    @property
    def hook(self) -> tuple[int, int]: ...
    def clock(self) -> int: ...
    def now(self) -> int: ...
