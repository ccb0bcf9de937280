from typing_extensions import disjoint_base

PAGE: int
CHUNK: int

@disjoint_base
class CodePages:
    pages: bytearray
    def __new__(
        cls, engine: int, memory: int, functions: tuple[int, int, int, int], kind: int,
        execution: int, flush: int
    ) -> CodePages: ...
    @property
    def hook(self) -> tuple[int, int]: ...
    def enter(self, address: int) -> bool: ...
    def forget(self) -> None: ...
    @property
    def unknown(self) -> bool: ...
    @property
    def watched(self) -> bytes: ...
