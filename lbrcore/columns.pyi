"""A batch given as separate columns; `LbrState.record_columns` is the public form."""

from typing import final

@final
class Columns:
    def __init__(
        self, from_: object, to: object, cls: object, cycles: object, flags: object,
        cpl_from: object, cpl_to: object, events: object,
    ) -> None: ...
    @property
    def count(self) -> int: ...
