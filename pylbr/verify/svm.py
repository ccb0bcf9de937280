"""SVM: the LBR of AMD processors without LbrExtV2, one record deep, and KVM's virtualization of it.

A vCPU, a guest that runs guests, a host with DEBUGCTL.LBR on or off, VMCB clean bits.  Small enough
for a search in plain Python.  Variants of KVM, from source:

``6.1``
    Linux 6.1.192: LBRs are moved between vmcb01 and vmcb02 as DEBUGCTL.LBR is switched; intercepts
    change only with the bit of the current VMCB; DEBUGCTL is switched by the hardware alone.
``6.12``
    Linux 6.12.117, after the series of November 2025 and the fix of February 2025.

`FIXES` of the second can be left out one by one.  Without LBR virtualization in vmcb12 L2 shares
the facility with L1, as on a bare processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pylbr.verify import plain_search
from pylbr.verify.plain_search import Found, Played, State

__all__ = ["FIXES", "Found", "Played", "TITLES", "play", "search"]

#: Fix -> what it is, and its commit.
FIXES = {
    "dirty": "VMCB_LBR is marked dirty when DEBUGCTL is written (dc55b3c3f612)",
    "intercepts": "intercepts are recalculated at every nested transition (fbe5e5f030c2)",
    "nested-copy": "LBRs are copied at every nested entry and exit, LBRV or not (8a4821412cf2)",
    "saved": "user space can save and restore the LBR MSRs",
    "debugctl": "without LBRV, KVM switches DEBUGCTL by hand (433265870ab3)",
    "sev-es": "LBRV of an SEV-ES guest is never switched off (b7e4be0a224f)",
}
#: Properties, as in `pylbr.verify.properties`.
TITLES = {
    "P1": "a guest reads a record of the host",
    "P4": "the host reads a record of a guest",
    "P5": "DEBUGCTL is not what its owner set, or VMRUN fails",
    "P21": "a guest's record is not the one that it would have had alone",
}


class _Vmcb:
    __slots__ = ("cached", "dbgctl", "dirty", "lbrv", "rec")

    def __init__(self, cells: tuple) -> None:
        self.dbgctl, self.rec, self.lbrv, self.dirty, self.cached = cells

    def cells(self) -> tuple:
        return self.dbgctl, self.rec, self.lbrv, self.dirty, None if self.dirty else self.cached

    def copy_lbrs(self, other: _Vmcb) -> None:
        """svm_copy_lbrs."""
        self.dbgctl, self.rec = other.dbgctl, other.rec

    def mark_dirty(self) -> None:
        self.dirty = 1


#: A VMCB: DEBUGCTL.LBR, the record, LBRV, whether VMCB_LBR is dirty, and what the processor holds
#: of it (DEBUGCTL.LBR, record), or None.
_NEW = (0, "", 0, 1, None)


class _World:
    """One state, unpacked.

    `level` is 0 in the host, 1 or 2 in a guest; `nested` is is_guest_mode, `virt` the LBRV bit of
    the vmcb12 that L2 was entered with; `l1` and `l2` are DEBUGCTL.LBR and the record that each
    would have on a processor of its own.
    """

    def __init__(self, state: State, fixes: frozenset[str], sev_es: bool) -> None:
        (self.level, self.nested, self.virt, self.hw, self.host, self.kept, self.intercepted,
         one, two, self.vmcb12, self.l1, self.l2) = state
        self.one, self.two = _Vmcb(one), _Vmcb(two)
        self.fixes, self.sev_es = fixes, sev_es
        self.broken: set[str] = set()
        self.seen: str | None = None

    def state(self) -> State:
        return (self.level, self.nested, self.virt, self.hw, self.host, self.kept,
                self.intercepted, self.one.cells(), self.two.cells(), self.vmcb12, self.l1,
                self.l2)

    @property
    def current(self) -> _Vmcb:
        return self.two if self.nested else self.one

    # ------------------------------------------------------------ the processor

    def vmrun(self) -> None:
        """By KVM, of the current VMCB."""
        vmcb = self.current
        if self.sev_es and not vmcb.lbrv:
            self.broken.add("P5")   # VMEXIT_INVALID
            return
        if vmcb.lbrv:
            self.kept = self.hw
            if vmcb.dirty or vmcb.cached is None:
                vmcb.cached = (vmcb.dbgctl, vmcb.rec)
            self.hw = vmcb.cached
        elif "debugctl" in self.fixes:
            self.kept = (self.hw[0], "")
            self.hw = (vmcb.dbgctl, self.hw[1])
        vmcb.dirty = 0
        self.level = 2 if self.nested else 1
        if self.hw[0] != self.alone()[0]:
            self.broken.add("P5")

    def exit(self) -> None:
        """#VMEXIT."""
        vmcb = self.current
        if vmcb.lbrv:
            vmcb.dbgctl, vmcb.rec = vmcb.cached = self.hw
            self.hw = self.kept
        elif "debugctl" in self.fixes:
            self.hw = (self.kept[0], self.hw[1])
        self.kept = (0, "")
        self.level = 0
        if self.hw[0] != self.host:
            self.broken.add("P5")

    def branch(self) -> None:
        """Two names are enough to distinguish an owner's new record from its last."""
        last = self.alone()[1]
        tag = f"L{self.level}{'b' if last == f'L{self.level}a' else 'a'}" if self.level else "h"
        if self.hw[0]:
            self.hw = (self.hw[0], tag)
        if self.level and self.alone()[0]:
            self.set_alone((1, tag))

    # ------------------------------------------------------------ L1 and L2 by themselves

    def alone(self) -> tuple[int, str]:
        return self.l2 if self.level == 2 and self.virt else self.l1

    def set_alone(self, value: tuple[int, str]) -> None:
        if self.level == 2 and self.virt:
            self.l2 = value
        else:
            self.l1 = value

    # ------------------------------------------------------------ KVM

    def update_lbrv(self) -> None:
        """svm_update_lbrv."""
        vmcb = self.current
        asked = bool(self.nested and self.virt)
        if "nested-copy" in self.fixes:
            wanted = int(vmcb.dbgctl or asked)
        else:
            wanted = int((vmcb if vmcb.lbrv else self.one).dbgctl or asked)
        if self.sev_es and "sev-es" in self.fixes:
            wanted = 1
        if wanted != vmcb.lbrv:
            vmcb.lbrv = wanted
            self.intercepted = int(not wanted)
            if "nested-copy" not in self.fixes and self.nested:
                to, of = (vmcb, self.one) if wanted else (self.one, vmcb)
                to.copy_lbrs(of)
                to.mark_dirty()
        if "intercepts" in self.fixes:
            self.intercepted = int(not vmcb.lbrv)

    def write_debugctl(self, value: int) -> None:
        """svm_set_msr; always intercepted, but of an SEV-ES guest."""
        self.set_alone((value, self.alone()[1]))
        if self.sev_es and "sev-es" in self.fixes:
            self.hw = (value, self.hw[1])
            return
        self.exit()
        vmcb = self.current
        place = vmcb if "nested-copy" in self.fixes or vmcb.lbrv else self.one
        if place.dbgctl != value:
            place.dbgctl = value
            if "dirty" in self.fixes:
                vmcb.mark_dirty()
            self.update_lbrv()
        self.vmrun()

    def read(self) -> None:
        """RDMSR of LASTBRANCHFROMIP."""
        level = self.level
        if self.intercepted:
            vmcb = self.current
            place = vmcb if "nested-copy" in self.fixes or vmcb.lbrv else self.one
            seen = place.rec
        else:
            seen = self.hw[1]
        self.seen = seen
        if seen == "h":
            self.broken.add("P1")
        if seen != self.alone()[1] and level:
            self.broken.add("P21")

    def enter_l2(self, virt: int) -> None:
        """VMRUN of L1."""
        self.exit()
        self.nested, self.virt = 1, virt
        two = self.two
        if "nested-copy" not in self.fixes:
            two.lbrv = self.one.lbrv | virt
        if virt:
            two.dbgctl, two.rec = self.vmcb12
            two.mark_dirty()
            self.update_lbrv()
        elif "nested-copy" in self.fixes:
            two.copy_lbrs(self.one)
            two.mark_dirty()
            self.update_lbrv()
        elif self.one.lbrv:
            two.copy_lbrs(self.one)
            two.mark_dirty()
        self.vmrun()

    def exit_to_l1(self) -> None:
        """#VMEXIT of L2 that L1 intercepts."""
        self.exit()
        two, virt = self.two, self.virt
        self.nested = 0
        if virt:
            self.vmcb12 = (two.dbgctl, two.rec)
            if self.vmcb12 != self.l2:
                self.broken.add("P21")
            self.l2 = self.vmcb12
        if virt and "nested-copy" not in self.fixes:
            self.update_lbrv()
        elif not virt and ("nested-copy" in self.fixes or self.one.lbrv):
            self.one.copy_lbrs(two)
            self.one.mark_dirty()
        self.virt = 0
        if "nested-copy" in self.fixes or self.one.lbrv:
            self.update_lbrv()
        self.vmrun()

    def migrate(self) -> None:
        """Saved by user space, and restored into a new vCPU."""
        self.intercepted = 1
        for vmcb in (self.one, self.two):
            keeps = "saved" in self.fixes
            vmcb.dbgctl, vmcb.rec = (vmcb.dbgctl, vmcb.rec) if keeps else (0, "")
            vmcb.lbrv, vmcb.dirty, vmcb.cached = int(self.sev_es), 1, None
        self.update_lbrv()

    # ------------------------------------------------------------ what can happen

    def successors(self) -> Iterator[tuple[str, _World]]:
        def then(words: str, act: str, *arguments: int) -> tuple[str, _World]:
            world = _World(self.state(), self.fixes, self.sev_es)
            getattr(world, act)(*arguments)
            return words, world

        if not self.level:
            yield then("host branch", "branch")
            yield then("VMRUN", "vmrun")
            yield then(f"host sets DEBUGCTL.LBR to {1 - self.host}", "switch_host")
            if not self.sev_es:
                yield then("migrate", "migrate")
            yield then("host reads LASTBRANCHFROMIP", "read_host")
            return
        guest = f"L{self.level}"
        yield then("exit", "exit")
        yield then(f"{guest} branch", "branch")
        yield then(f"{guest} rdmsr LASTBRANCHFROMIP", "read")
        yield then(f"{guest} wrmsr DEBUGCTL {1 - self.alone()[0]}", "write_debugctl",
                   1 - self.alone()[0])
        if self.level == 1 and not self.sev_es:
            yield then("L1 vmrun", "enter_l2", 0)
            yield then("L1 vmrun with LBRV", "enter_l2", 1)
        elif self.level == 2:
            yield then("L2 exits to L1", "exit_to_l1")

    def switch_host(self) -> None:
        self.host ^= 1
        self.hw = (self.host, self.hw[1])

    def read_host(self) -> None:
        if self.host and self.hw[1] not in ("", "h"):
            self.broken.add("P4")


def _start(sev_es: bool) -> State:
    lbrv = int(sev_es)
    return (0, 0, 0, (0, ""), 0, (0, ""), int(not lbrv), (0, "", lbrv, 1, None), _NEW, (0, ""),
            (0, ""), (0, ""))


def play(
    words: Iterable[str], fixes: Iterable[str] = frozenset(FIXES), sev_es: bool = False,
) -> Played:
    """Run what is written, in the words that `search` prints.

    Raises
    ------
    StateError
        Something cannot happen where it stands.
    """
    return plain_search.play(_World(_start(sev_es), frozenset(fixes), sev_es), words)


def search(
    fixes: frozenset[str] | set[str] = frozenset(FIXES), sev_es: bool = False,
    until: str | None = None,
) -> Found:
    """All states of one vCPU, breadth first; what follows a broken property is not searched.

    Parameters
    ----------
    fixes : set of str
        Names out of `FIXES` that this KVM has.  Without any it is that of 6.1 before its own.
    sev_es : bool
        The guest's registers are encrypted; it runs no guests.
    until : str, optional
        End as soon as this property is broken.
    """
    fixes = frozenset(fixes)
    return plain_search.search(lambda state: _World(state, fixes, sev_es), _start(sev_es), until)
