"""A device for files and messages between guest and host, at port F6H.

An OUT of 32 bits to the port is an operation, in EAX: RDI is the guest-virtual address of a buffer
and RSI its size; EAX becomes the result, negative (all ones) for a failure.

=====  =========================================================================================
1      READY: the guest waits for work.  The host may save the machine here; when the guest goes
       on, the inbox is filled.
2      RECEIVE: the next bytes of the inbox, at most RSI, into the buffer; their number, 0 at the
       end.
3      SEND: append the buffer to the outbox; RSI.
=====  =========================================================================================

A buffer that is not mapped, or more than the outbox holds, is a failure.
"""

from __future__ import annotations

from contextlib import suppress

from unicorn import x86_const as reg

from pylbr.embed.engine import GuestFault
from pylbr.embed.machine import Ending, Machine

__all__ = ["PORT", "Channel"]

PORT = 0xF6
_READY, _RECEIVE, _SEND = 1, 2, 3
_FAILED = 0xFFFFFFFF
_LARGEST_BUFFER = 1 << 20
_LARGEST_OUTBOX = 1 << 30


class Channel:
    """The device, attached to a machine.

    Parameters
    ----------
    machine : Machine
        `Machine.run` returns an ending "ready" at READY.

    Attributes
    ----------
    inbox : bytes
        What the guest will receive.
    outbox : bytearray
        What it has sent.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.inbox = b""
        self.outbox = bytearray()
        self._received = 0
        machine.ports.attach(range(PORT, PORT + 1), None, self._operate)

    def _operate(self, number: int, operation: int) -> None:
        uc = self._machine.running.uc
        address, size = (uc.reg_read(r) for r in (reg.UC_X86_REG_RDI, reg.UC_X86_REG_RSI))
        if operation == _READY:
            uc.reg_write(reg.UC_X86_REG_RAX, 0)
            self._machine.stop_soon(Ending("ready", 0, "the guest waits for work"))
            return
        result = _FAILED
        if size <= _LARGEST_BUFFER:
            with suppress(GuestFault):
                result = {_RECEIVE: self._receive, _SEND: self._send}.get(
                    operation, lambda address, size: _FAILED)(address, size)
        uc.reg_write(reg.UC_X86_REG_RAX, result)

    def _receive(self, address: int, size: int) -> int:
        part = self.inbox[self._received:self._received + size]
        self._machine.running.link.engine.write(address, part)
        self._received += len(part)
        return len(part)

    def _send(self, address: int, size: int) -> int:
        if len(self.outbox) + size > _LARGEST_OUTBOX:
            return _FAILED
        self.outbox += self._machine.running.link.engine.read(address, size)
        return size
