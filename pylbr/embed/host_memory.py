"""Memory of the host that the engine does not get."""

from __future__ import annotations

from contextlib import ContextDecorator
from types import TracebackType

from unicorn import UC_ERR_NOMEM, UcError

__all__ = ["host_memory"]


class host_memory(ContextDecorator):
    """Where the engine may allocate, around a block or a function.

    Raises
    ------
    MemoryError
        In place of the engine's own error, which looks like one of the guest.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if isinstance(error, UcError) and error.errno == UC_ERR_NOMEM:
            raise MemoryError("the engine") from None
