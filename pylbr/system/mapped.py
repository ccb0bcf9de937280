"""What lies where in the guest's kernel, as perf's records of mappings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from pylbr.embed.image import ImageError
from pylbr.errors import CommandError
from pylbr.perf.abi import MISC_KERNEL
from pylbr.perf.stacks import Mmap
from pylbr.system.kernel import MODULES, GuestKernel, read_kernel
from pylbr.system.modules import Modules
from pylbr.system.monitor import Monitor

__all__ = ["Mapped"]

#: As perf names it, with the symbol by which readers find how far the kernel was moved.
_KERNEL: Final = "[kernel.kallsyms]_text"
_MODULES_SECONDS: Final = 0.25


class Mapped:
    """Finds the kernel and its modules.

    Parameters
    ----------
    monitor : Monitor
    vmlinux : str
        File with the kernel's symbols; empty: the one that QEMU boots.
    command : sequence of str
        QEMU's command line.

    Attributes
    ----------
    known : bool
        Nothing has to wait for the kernel's place any more.
    began : int
        Time of all mappings: readers that give a process the kernel's mappings do so when they
        first meet it, and the kernel's addresses are not used twice.

    Raises
    ------
    CommandError
        The file that was named is no kernel.
    """

    def __init__(self, monitor: Monitor, vmlinux: str, command: Sequence[str]) -> None:
        self._monitor = monitor
        self._kernel, self._why = _found(vmlinux, command)
        self._slide: int | None = None
        self._modules: Modules | None = None
        self._next_modules = 0.0
        self._blocks = 0
        self.known = self._kernel is None
        self.began = time.monotonic_ns()

    def news(self, blocks: Callable[[], np.ndarray]) -> list[Mmap]:
        """Mappings that have become known since the last call; `blocks` gives those that ran."""
        if self._kernel is None:
            return []
        said = []
        if self._slide is None:
            table = blocks()
            if len(table) < 2 * self._blocks:
                return []
            self._blocks = len(table)
            self._slide = self._kernel.moved(table)
            if self._slide is None:
                return []
            self.known = True
            self._modules = Modules(self._kernel, self._slide, self._monitor.memory)
            start = self._kernel.start + self._slide
            said.append(self._mmap(start, MODULES - start, start, _KERNEL,
                                   self._kernel.build_id()))
        if time.monotonic() >= self._next_modules and self._modules is not None:
            self._next_modules = time.monotonic() + _MODULES_SECONDS
            said += [self._mmap(start, size, 0, f"[{name}]") for name, start, size in
                     self._modules.news()]
        return said

    def _mmap(
        self, start: int, length: int, offset: int, path: str, build_id: bytes = b""
    ) -> Mmap:  # fmt: skip
        return Mmap(-1, 0, start, length, offset, path, build_id, misc=MISC_KERNEL,
                    time=self.began)

    def remarks(self) -> list[str]:
        """What was not found."""
        if self._kernel is None:
            return [f"no mapping of the kernel: {self._why}; --vmlinux FILE names the one that "
                    "runs"]
        if self._slide is None:
            return ["no mapping of the kernel: what ran is not this kernel's code; --vmlinux FILE "
                    "names the one that does"]
        return self._modules.remarks() if self._modules is not None else []


def _found(vmlinux: str, command: Sequence[str]) -> tuple[GuestKernel | None, str]:
    """The kernel of a command line, or why there is none."""
    path = vmlinux
    for word, following in zip(command, command[1:], strict=False):
        if word in ("-kernel", "--kernel") and not vmlinux:
            path = following
    if not path:
        return None, "the command line has no -kernel"
    try:
        return read_kernel(path), ""
    except (OSError, ImageError) as error:
        if vmlinux:
            raise CommandError(f"--vmlinux {vmlinux}: {error}") from error
        return None, str(error)
