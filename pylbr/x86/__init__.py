"""x86-64 instructions: length, branch class and operands.

`decode.h` is the decoder, freestanding C for the code that runs inside a recorded program and
inside QEMU; `insn.h` describes its result.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["include_directory"]


def include_directory() -> Path:
    """Directory of ``decode.h``; it includes ``lbrcore.h`` of `lbrcore.get_include`."""
    return Path(__file__).parent
