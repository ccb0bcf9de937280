"""pylbr: last-branch records without the hardware.

>>> import pylbr
>>> recording = pylbr.record(["./app", "input"])  # doctest: +SKIP
>>> profile = pylbr.profile_of(recording)  # doctest: +SKIP
>>> profile.to_pandas("functions", limit=20)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbrcore import LbrState as LbrState
    from pylbr.api import open as open
    from pylbr.api import profile_of as profile_of
    from pylbr.cpu.processor import Processor as Processor
    from pylbr.perf.stacks import Samples as Samples
    from pylbr.perf.stacks import Stacks as Stacks
    from pylbr.profile.file_profile import FileProfile as FileProfile
    from pylbr.record.recorded import Recording as Recording
    from pylbr.record.recorded import record_program as record
    from pylbr.record.recorded import record_program as record_program
    from pylbr.trace.trace import Trace as Trace

    __version__: str

#: Name -> its module, which is imported when the name is used: ``import pylbr`` stays quick.
_MODULES = {
    "FileProfile": "pylbr.profile.file_profile",
    "LbrState": "lbrcore",
    "Processor": "pylbr.cpu.processor",
    "Recording": "pylbr.record.recorded",
    "Samples": "pylbr.perf.stacks",
    "Stacks": "pylbr.perf.stacks",
    "Trace": "pylbr.trace.trace",
    "open": "pylbr.api",
    "profile_of": "pylbr.api",
    "record_program": "pylbr.record.recorded",
}

__all__ = [
    "FileProfile", "LbrState", "Processor", "Recording", "Samples", "Stacks", "Trace",
    "__version__", "open", "profile_of", "record", "record_program",
]  # fmt: skip


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name):
        # Looking it up costs more than everything else here.
        if name == "__version__":
            from importlib.metadata import version

            return version("pylbr")
        if name == "record":  # the package, which can be called
            return importlib.import_module("pylbr.record")
        if name in _MODULES:
            value = getattr(importlib.import_module(_MODULES[name]), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module 'pylbr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
