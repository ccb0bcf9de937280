"""Numbers that the plugin (plugin/wire.h) and pylbr share, and choices of the recorder."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from pylbr.record import _wire
from pylbr.record._wire import BLOCK_DTYPE, EVENT, NO_BRANCH, PAYLOAD, PAYLOAD_BITS

__all__ = [
    "BLOCK_DTYPE", "Counted", "EVENT", "IMAGE", "KERNEL_ENTRY", "KERNEL_EXIT", "Message",
    "NO_BRANCH", "PAYLOAD", "PAYLOAD_BITS", "WordEvent",
]

#: Where a system call, interrupt or exception enters the kernel, and where the kernel returns
#: from.  User-mode QEMU has no kernel code, so two addresses of the x86-64 kernel's text range
#: stand for it.  A facility that records user mode only shows neither.
KERNEL_ENTRY: Final = 0xFFFFFFFF81000000
KERNEL_EXIT: Final = 0xFFFFFFFF81000080

#: A process that executes another program becomes another one in files, since its modules
#: change: its numbers grow by this, which no pid reaches (PID_MAX_LIMIT of linux/threads.h).
IMAGE: Final = 1 << 22


class WordEvent(IntEnum):
    """What happened between two blocks (``wire_event``)."""

    ASYNCHRONOUS = _wire.ASYNCHRONOUS  #: a signal from outside; payload: the interrupted address
    SYNCHRONOUS = _wire.SYNCHRONOUS  #: a fault; payload: the address of the instruction
    SIGRETURN = _wire.SIGRETURN  #: a handler returns to the interrupted code


class Counted(IntEnum):
    """What the period between samples counts (``wire_counted``)."""

    BRANCHES = _wire.BRANCHES
    INSTRUCTIONS = _wire.INSTRUCTIONS
    CYCLES = _wire.CYCLES
    TAKEN = _wire.TAKEN
    TIME = _wire.TIME


class Message(IntEnum):
    """Messages of the plugin outside the ring (``wire_message_type``)."""

    MMAP = _wire.MMAP
    COMM = _wire.COMM
    NATIVE = _wire.NATIVE
    KILLED = _wire.KILLED
    NAME = _wire.NAME
