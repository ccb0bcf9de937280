"""SVM: how KVM moves LBRs between the VMCBs of a guest that runs guests.

What the models of AMD's one record (`pylbr.verify.svm`) and of its stack (`pylbr.verify.svm_stack`)
share: LBR virtualization (LBRV) is switched with what the guest enables, and intercepts with it;
LBRs are copied at nested entries and exits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeVar

from pylbr.verify.plain_search import Registers

__all__ = ["Nested", "Vmcb"]


class Vmcb:
    """DEBUGCTL.LBR, the record, LBRV; LBRV2EN of a stack; whether VMCB_LBR is dirty, and what the
    processor holds of it (DEBUGCTL.LBR, record), or None."""

    __slots__ = ("cached", "dbgctl", "dirty", "ext", "lbrv", "rec")

    def __init__(
        self, dbgctl: int = 0, rec: str = "", lbrv: int = 0, ext: int = 0, dirty: int = 1,
        cached: tuple[int, str] | None = None,
    ) -> None:
        self.dbgctl, self.rec, self.lbrv, self.ext = dbgctl, rec, lbrv, ext
        self.dirty, self.cached = dirty, cached

    def cells(self) -> tuple:
        """What `Vmcb` makes the same of."""
        return (self.dbgctl, self.rec, self.lbrv, self.ext, self.dirty,
                None if self.dirty else self.cached)


_N = TypeVar("_N", bound="Nested")


class Nested(ABC):
    """A vCPU and its processor, unpacked.

    `level` is 0 in the host, 1 or 2 in a guest; `nested` is is_guest_mode, `virt` the LBRV bit of
    the vmcb12 that L2 was entered with; `hw` is the enable bit and the record in the registers;
    `l1` and `l2` are those that each would have on a processor of its own; `one` and `two` are
    vmcb01 and vmcb02.
    """

    level: int
    nested: int
    virt: int
    hw: tuple[int, str]
    intercepted: int
    l1: tuple[int, str]
    l2: tuple[int, str]
    one: Vmcb
    two: Vmcb
    sev_es: bool
    #: LBRs are copied at every nested entry and exit, LBRV or not (8a4821412cf2).
    copies: bool
    #: Intercepts are recalculated at every nested transition (fbe5e5f030c2).
    recalculates: bool
    #: LBRV is never switched off (b7e4be0a224f).
    always: bool
    broken: set[str]
    seen: str | None

    def registers(self) -> Registers:
        """What the processor has, to be printed."""
        return Registers(f"L{self.level}" if self.level else "host", (self.hw[1] or "-",),
                         bool(self.hw[0]))

    # ------------------------------------------------------------ what a model adds

    @abstractmethod
    def again(self: _N) -> _N:
        """The same state once more."""

    @abstractmethod
    def vmrun(self) -> None:
        """VMRUN by KVM, of the current VMCB."""

    @abstractmethod
    def exit(self) -> None:
        """#VMEXIT."""

    def enables(self, vmcb: Vmcb) -> bool:
        """Does the guest's state in this VMCB ask for LBRV?"""
        return bool(vmcb.dbgctl)

    @abstractmethod
    def copy(self, to: Vmcb, of: Vmcb) -> None:
        """svm_copy_lbrs, and what marks the VMCB as written."""

    @abstractmethod
    def load_vmcb12(self) -> None:
        """LBRs of vmcb12 go to vmcb02."""

    @abstractmethod
    def store_vmcb12(self) -> None:
        """LBRs of vmcb02 go to vmcb12."""

    # ------------------------------------------------------------ L1 and L2 by themselves

    def alone(self) -> tuple[int, str]:
        """The enable bit and the record that the running level would have alone."""
        return self.l2 if self.level == 2 and self.virt else self.l1

    def set_alone(self, value: tuple[int, str]) -> None:
        """Change them."""
        if self.level == 2 and self.virt:
            self.l2 = value
        else:
            self.l1 = value

    def next_record(self) -> str:
        """Two names are enough to distinguish a guest's new record from its last; the host's is
        there or not."""
        if not self.level:
            return "h"
        name = f"L{self.level}"
        return name + ("b" if self.alone()[1] == name + "a" else "a")

    # ------------------------------------------------------------ KVM

    @property
    def current(self) -> Vmcb:
        """The VMCB that VMRUN takes."""
        return self.two if self.nested else self.one

    def place(self) -> Vmcb:
        """The VMCB whose LBRs are the guest's."""
        return self.current if self.copies or self.current.lbrv else self.one

    def read_lbr(self) -> str:
        """RDMSR of the record: of the registers, or by an exit, of the VMCB."""
        if not self.intercepted:
            return self.hw[1]
        self.exit()
        seen = self.place().rec
        self.vmrun()
        return seen

    def update_lbrv(self) -> None:
        """svm_update_lbrv."""
        vmcb = self.current
        wanted = int(self.enables(self.place()) or bool(self.nested and self.virt) or self.always)
        if wanted != vmcb.lbrv:
            vmcb.lbrv = wanted
            self.intercepted = int(not wanted)
            if not self.copies and self.nested:
                self.copy(*((vmcb, self.one) if wanted else (self.one, vmcb)))
        if self.recalculates:
            self.intercepted = int(not vmcb.lbrv)

    def enter_l2(self, virt: int) -> None:
        """VMRUN of L1."""
        self.exit()
        self.nested, self.virt = 1, virt
        if not self.copies:
            self.two.lbrv = self.one.lbrv | virt
        if virt:
            self.load_vmcb12()
        elif self.copies or self.one.lbrv:
            self.copy(self.two, self.one)
        if self.copies or virt:
            self.update_lbrv()
        self.vmrun()

    def exit_to_l1(self) -> None:
        """#VMEXIT of L2 that L1 intercepts."""
        self.exit()
        virt, self.nested = self.virt, 0
        if virt:
            self.store_vmcb12()
        elif self.copies or self.one.lbrv:
            self.copy(self.one, self.two)
        self.virt = 0
        if virt or self.copies or self.one.lbrv:
            self.update_lbrv()
        self.vmrun()

    # ------------------------------------------------------------ what can happen

    def then(self: _N, words: str, act: str, *arguments: int) -> tuple[str, _N]:
        """The words of an action, and the world after it."""
        world = self.again()
        getattr(world, act)(*arguments)
        return words, world

    def nested_steps(self: _N) -> Iterator[tuple[str, _N]]:
        """Entry of L2 and exit to L1; an SEV-ES guest runs no guests."""
        if self.level == 1 and not self.sev_es:
            yield self.then("L1 vmrun", "enter_l2", 0)
            yield self.then("L1 vmrun with LBRV", "enter_l2", 1)
        elif self.level == 2:
            yield self.then("L2 exits to L1", "exit_to_l1")
