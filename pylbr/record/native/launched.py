"""A program that waits, before it is executed, until the recorder is ready."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from pylbr.record.process import Process

__all__ = ["Launched"]

_WAIT: Final = 0.001


class Launched(Process):
    """See `Process`; the program is executed as it is, natively.

    Parameters
    ----------
    launch : str
        Path of the launcher.
    path : str
        Of the program or script.
    arguments : sequence of str
        Its argv.
    """

    def __init__(self, launch: str, path: str, arguments: Sequence[str]) -> None:
        gate, self._gate = os.pipe()
        os.set_inheritable(gate, True)
        try:
            self._start(launch, [path, *arguments], dict(os.environ), gate)
        except BaseException:
            os.close(self._gate)
            raise
        finally:
            os.close(gate)

    def wait_for_pid(self) -> int | None:
        """The process that will execute the program; None if it has ended already."""
        while self.running() and self.pid is None:
            self.wait(_WAIT)
        return self.pid if self.status is None else None

    def open_gate(self) -> None:
        """Let it execute the program."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"\0")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        os.close(self._gate)
        super().__exit__(kind, error, where)
