"""Numbers that the plugin (wire.h) and pylbr share, and choices of the recorder."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np

from lbrcore.events import Unit

__all__ = [
    "BLOCK_DTYPE", "Counted", "EVENT", "IMAGE", "KERNEL_ENTRY", "KERNEL_EXIT", "NO_BRANCH",
    "PAYLOAD", "PAYLOAD_BITS", "WordEvent",
]

#: Where a system call, interrupt or exception enters the kernel, and where the kernel returns
#: from.  User-mode QEMU has no kernel code, so two addresses of the x86-64 kernel's text range
#: stand for it.  A facility that records user mode only shows neither.
KERNEL_ENTRY: Final = 0xFFFFFFFF81000000
KERNEL_EXIT: Final = 0xFFFFFFFF81000080

#: A process that executes another program becomes another task of a trace, since its modules
#: change: its numbers grow by this, which no pid reaches (PID_MAX_LIMIT of linux/threads.h).
IMAGE: Final = 1 << 22

#: ``wire_block``: one translated block.
BLOCK_DTYPE: Final = np.dtype(
    {
        "names": ["start", "target", "lengths", "size", "last", "instructions", "cost", "class"],
        "formats": ["u8", "u8", "u4", "u2", "u2", "u2", "u2", "u1"],
        "offsets": [0, 8, 16, 20, 22, 24, 26, 28],
        "itemsize": 32,
    }
)

#: Class of a block that ends without a branch.
NO_BRANCH: Final = 255
#: Words of a ring that are no block's number.
PAYLOAD: Final = 0x40000000
PAYLOAD_BITS: Final = 30
EVENT: Final = 0x80000000


class WordEvent(IntEnum):
    """What happened between two blocks (``wire_event``)."""

    ASYNCHRONOUS = 1  #: a signal from outside; payload: the interrupted address
    SYNCHRONOUS = 2  #: a fault; payload: the address of the instruction
    SIGRETURN = 3  #: a handler returns to the interrupted code


class Counted(IntEnum):
    """What the period between samples counts (``wire_counted``)."""

    BRANCHES = Unit.BRANCHES
    INSTRUCTIONS = Unit.INSTRUCTIONS
    CYCLES = Unit.CYCLES
    TAKEN = 3
    TIME = 4
