"""QEMU's monitor: the guest's registers and memory while it runs.

Source: QEMU, qapi/machine.json (``memsave``, ``human-monitor-command``) and docs/interop/qmp-spec.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

__all__ = ["Monitor", "gates_in"]

_GATE_BYTES: Final = 16
_GATES: Final = 256
_PRESENT: Final = 1 << 15
_SECONDS: Final = 5.0
_LARGEST: Final = 1 << 20


class Monitor:
    """One more monitor of a QEMU that is about to start: `option` is for its command line.

    Whatever goes wrong is no error: the answer is None then, as while QEMU has not started, or
    when the guest has nothing at an address.
    """

    def __init__(self) -> None:
        self._place = tempfile.mkdtemp(prefix="pylbr-")
        self._socket: socket.socket | None = None
        self._unread = b""

    @property
    def option(self) -> list[str]:
        """Words for QEMU's command line."""
        return ["-qmp", f"unix:{self._place}/monitor,server=on,wait=off"]

    def memory(self, address: int, size: int) -> bytes | None:
        """The guest's memory at a linear address, as its first processor sees it."""
        path = os.path.join(self._place, "memory")
        if size > _LARGEST or self._ask("memsave", val=_signed(address), size=size,
                                        filename=path) is None:
            return None
        with contextlib.suppress(OSError), open(path, "rb") as file:
            found = file.read(size)
            return found if len(found) == size else None
        return None

    def gates(self) -> np.ndarray | None:
        """Where the gates of the interrupt descriptor table lead: u8, ascending."""
        text = self._ask("human-monitor-command", **{"command-line": "info registers"})
        found = re.search(r"^IDT= *([0-9a-f]{16}) ([0-9a-f]{8})", str(text), re.M)
        if found is None:
            return None
        size = min(int(found[2], 16) + 1, _GATES * _GATE_BYTES)
        table = self.memory(int(found[1], 16), size)
        return None if table is None else gates_in(table)

    def close(self) -> None:
        """Drop the connection and what was written."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        shutil.rmtree(self._place, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _ask(self, command: str, **arguments: object) -> Any:
        try:
            if self._socket is None:
                self._connect()
            return self._call(command, arguments)
        except (OSError, ValueError):
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            return None

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_SECONDS)
        try:
            connection.connect(os.path.join(self._place, "monitor"))
        except OSError:
            connection.close()
            raise
        self._socket, self._unread = connection, b""
        self._line()  # the greeting
        self._call("qmp_capabilities", {})

    def _call(self, command: str, arguments: dict[str, object]) -> Any:
        assert self._socket is not None
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:  # events come in between
            answer = json.loads(self._line())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                return None

    def _line(self) -> bytes:
        assert self._socket is not None
        while b"\n" not in self._unread:
            data = self._socket.recv(1 << 16)
            if not data:
                raise OSError("the monitor is gone")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def gates_in(table: bytes) -> np.ndarray:
    """Addresses in an interrupt descriptor table (SDM vol. 3, 6.14.1): u8, ascending."""
    rows = np.frombuffer(table[:len(table) // _GATE_BYTES * _GATE_BYTES], "<u4").reshape(-1, 4)
    rows = rows[rows[:, 1] & _PRESENT != 0].astype(np.uint64)
    low, high = rows[:, 0] & np.uint64(0xFFFF), rows[:, 1] & np.uint64(0xFFFF0000)
    return np.unique(rows[:, 2] << np.uint64(32) | high | low)


def _signed(address: int) -> int:
    return address - (1 << 64) if address >> 63 else address
