"""Recorders of programs: engines, what they send, and the files that it becomes.

Called, the package is `pylbr.record.recorded.record_program`: ``pylbr.record(["./app", "input"])``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pylbr.record.recorded import Recording


class _Recorders(ModuleType):
    """This package: importing a part of it binds `pylbr.record` to it, so it is what is called."""

    def __call__(self, command: Sequence[str | os.PathLike[str]] = (),
                 output: str | os.PathLike[str] | None = None, **options: Any) -> Recording:
        """Run a program to its end and record its branches; options: `record_program`."""
        from pylbr.record.recorded import record_program

        return record_program(command, output, **options)


sys.modules[__name__].__class__ = _Recorders
