"""The modules that a guest's Linux has loaded, read from its memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from pylbr.system.btf import Btf
from pylbr.system.kernel import GuestKernel

__all__ = ["Modules"]

_MOST: Final = 1024
_UPPER: Final = 1 << 63


class Modules:
    """Follows the kernel's list ``modules``; its members lie where the kernel's BTF places them.

    Parameters
    ----------
    kernel : GuestKernel
    slide : int
        By how much it was moved.
    memory : callable
        Reads the guest's memory, of an address and size; None where there is nothing, as for a
        processor that runs a program with page tables of its own (KPTI).
    """

    def __init__(
        self, kernel: GuestKernel, slide: int, memory: Callable[[int, int], bytes | None]
    ) -> None:
        self._memory = memory
        self._head = kernel.symbols.get("modules", 0) + slide if "modules" in kernel.symbols else 0
        start, end = kernel.symbols.get("__start_BTF", 0), kernel.symbols.get("__stop_BTF", 0)
        self._members = _Members.found(kernel.contents(start, end - start)) if (
            end > start > 0) else None
        self._known: set[tuple[str, int]] = set()
        self._newest = -1

    def news(self) -> list[tuple[str, int, int]]:
        """(name, address, size) of the code of modules that were not there before."""
        members, head = self._members, self._word(self._head) if self._head else None
        if members is None or head is None or head == self._newest:
            return []
        found, at = [], head
        for _ in range(_MOST):
            if at == self._head:
                self._newest = head
                break
            data = self._memory(at - members.list, members.size) if at >= _UPPER else None
            if data is None:
                break
            module = members.of(data)
            if module[:2] not in self._known:
                self._known.add(module[:2])
                found.append(module)
            at, = struct.unpack_from("<Q", data, members.list)
        return found

    def remarks(self) -> list[str]:
        """Why there are no modules, if they could not be looked for."""
        if self._members is None or not self._head:
            return ["no mappings of modules: the kernel has no BTF, in which their places are"]
        return []

    def _word(self, address: int) -> int | None:
        data = self._memory(address, 8)
        return None if data is None else int(struct.unpack("<Q", data)[0])


class _Members:
    """Where members of the kernel's ``struct module`` lie."""

    def __init__(self, list_: int, name: int, base: int, size_of: int) -> None:
        self.list, self._name, self._base, self._size = list_, name, base, size_of
        self.size = max(list_ + 8, name + 56, base + 8, size_of + 4)

    @classmethod
    def found(cls, data: bytes) -> _Members | None:
        """From the kernel's BTF; None if that has no such structure."""
        btf = Btf.read(data)
        module = btf.struct("module") if btf else {}
        if btf is None or "list" not in module or "name" not in module:
            return None
        list_, name = module["list"].offset, module["name"].offset
        if "core_layout" in module:  # up to 6.3
            base = module["core_layout"].offset
            inner = btf.struct("module_layout")
            size = "text_size"
        elif "mem" in module:  # MOD_TEXT is the first
            base = module["mem"].offset
            inner = btf.struct("module_memory")
            size = "size"
        else:
            return None
        if "base" not in inner or size not in inner:
            return None
        return cls(list_, name, base + inner["base"].offset, base + inner[size].offset)

    def of(self, data: bytes) -> tuple[str, int, int]:
        """(name, address, size) of a module's code."""
        name = data[self._name:self._name + 56].split(b"\0")[0].decode("latin-1")
        return (name, int(struct.unpack_from("<Q", data, self._base)[0]),
                int(struct.unpack_from("<I", data, self._size)[0]))
