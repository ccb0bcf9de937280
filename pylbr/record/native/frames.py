"""Signal frames on the stacks of a stopped thread: where it will return to, and how."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from pylbr.record.native.ptrace import Tracee
from pylbr.record.native.ranges import Mapping

__all__ = ["NO_STACK", "Frame", "frames"]

# struct rt_sigframe: the return address, then struct ucontext (uapi/asm/ucontext.h, sigcontext.h).
_FLAGS, _LINK, _STACK, _RSP, _RIP, _SELECTORS = 1, 2, 3, 21, 22, 24
_WORDS: Final = 25
_USER_CS, _USER_SS = 0x33, 0x2B
_UC_FLAGS: Final = 16  # more than the three that there are
#: What is read of a stack, bytes, and how many stacks of a thread.
_MOST: Final = 1 << 20
_STACKS: Final = 4
#: stack_t without an alternate stack.
NO_STACK: Final = struct.pack("<QQQ", 0, 2, 0)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a handler of a signal that has not returned goes back to.

    Attributes
    ----------
    returns : int
        Return address of the handler.
    rip : int
        Where the thread continues.
    stack : int
        The alternate stack that it has then.
    stack_at : int
        Where that is written, a ``stack_t``.
    """

    returns: int
    rip: int
    stack: int
    stack_at: int


def frames(tracee: Tracee, rsp: int, found: Sequence[Mapping]) -> Iterator[Frame]:
    """Frames on the stack at `rsp`, and on those that they lead back to.

    They are recognised by their selectors, their flags and the link that is always 0.  The first
    MiB of a stack is looked at.

    Parameters
    ----------
    tracee : Tracee
    rsp : int
    found : sequence of Mapping
        Those of its process.
    """
    seen: set[int] = set()
    starts = [rsp]
    while starts and len(seen) < _STACKS:
        at = starts.pop()
        m = next((m for m in found if m.start <= at < m.end), None)
        if m is None or m.start in seen:
            continue
        seen.add(m.start)
        at = -(-at // 8) * 8
        data = b""
        with suppress(OSError):
            data = tracee.read(at, min(m.end - at, _MOST))
        words = np.frombuffer(data[: len(data) // 8 * 8], "<u8")
        for i in _places(words):
            frame = words[i : i + _WORDS].tolist()
            starts.append(frame[_RSP])
            yield Frame(frame[0], frame[_RIP], frame[_STACK], at + 8 * (i + _STACK))


def _places(words: np.ndarray) -> list[int]:
    """Indices of words with which frames begin."""
    count = len(words) - _WORDS + 1
    if count <= 0:
        return []
    selectors = words[_SELECTORS:]
    good = (selectors & np.uint64(0xFFFF)) == _USER_CS
    good &= (selectors >> np.uint64(48)) == _USER_SS
    good &= words[_LINK : _LINK + count] == 0
    good &= words[_FLAGS : _FLAGS + count] < _UC_FLAGS
    return [int(i) for i in np.flatnonzero(good)]
