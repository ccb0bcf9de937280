"""x86-64 instructions: length, branch class and operands.

`decode.h` is the decoder for the code that runs inside a recorded program and inside QEMU,
freestanding C; `insn.h` describes its result.  `classify` is the same in Python, in all modes;
`facts` describes a block that an emulator translated, and `blocks` makes branches of executed
blocks.
"""

from __future__ import annotations

from pathlib import Path

from pylbr.x86.classify import Decoded, classify

__all__ = ["Decoded", "classify", "get_include"]


def get_include() -> str:
    """Directory of ``decode.h``, which includes ``lbrcore.h`` of `lbrcore.get_include`."""
    return str(Path(__file__).parent)
