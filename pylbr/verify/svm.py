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
from pylbr.verify.plain_search import Found, Ground, Played, State
from pylbr.verify.svm_nested import Nested, Vmcb

__all__ = ["FIXES", "Found", "MERGED", "Played", "TITLES", "ground", "play", "search"]

#: Fix -> what it is, and its commit.
FIXES = {
    "dirty": "VMCB_LBR is marked dirty when DEBUGCTL is written (dc55b3c3f612)",
    "intercepts": "intercepts are recalculated at every nested transition (fbe5e5f030c2)",
    "nested-copy": "LBRs are copied at every nested entry and exit, LBRV or not (8a4821412cf2)",
    "saved": "user space can save and restore the LBR MSRs",
    "debugctl": "without LBRV, KVM switches DEBUGCTL by hand (433265870ab3)",
    "sev-es": "LBRV of an SEV-ES guest is never switched off (b7e4be0a224f)",
}
#: What merged KVM has of them.
MERGED = {"6.1": frozenset({"dirty"}), "6.12": frozenset(FIXES)}
#: Properties, as in `pylbr.verify.properties`.
TITLES = {
    "P1": "a guest reads a record of the host",
    "P4": "the host reads a record of a guest",
    "P5": "DEBUGCTL is not what its owner set, or VMRUN fails",
    "P21": "a guest's record is not the one that it would have had alone",
}


class _World(Nested):
    """One state, unpacked."""

    def __init__(self, state: State, fixes: frozenset[str], sev_es: bool) -> None:
        (self.level, self.nested, self.virt, self.hw, self.host, self.kept, self.intercepted,
         one, two, self.vmcb12, self.l1, self.l2) = state
        self.one, self.two = Vmcb(*one), Vmcb(*two)
        self.fixes, self.sev_es = fixes, sev_es
        self.copies, self.recalculates = "nested-copy" in fixes, "intercepts" in fixes
        self.always = sev_es and "sev-es" in fixes
        self.broken = set()
        self.seen = None

    def state(self) -> State:
        return (self.level, self.nested, self.virt, self.hw, self.host, self.kept,
                self.intercepted, self.one.cells(), self.two.cells(), self.vmcb12, self.l1,
                self.l2)

    def again(self) -> _World:
        return _World(self.state(), self.fixes, self.sev_es)

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
        tag = self.next_record()
        if self.hw[0]:
            self.hw = (self.hw[0], tag)
        if self.level and self.alone()[0]:
            self.set_alone((1, tag))

    # ------------------------------------------------------------ KVM

    def copy(self, to: Vmcb, of: Vmcb) -> None:
        to.dbgctl, to.rec, to.dirty = of.dbgctl, of.rec, 1

    def load_vmcb12(self) -> None:
        (self.two.dbgctl, self.two.rec), self.two.dirty = self.vmcb12, 1

    def store_vmcb12(self) -> None:
        self.vmcb12 = (self.two.dbgctl, self.two.rec)
        if self.vmcb12 != self.l2:
            self.broken.add("P21")
        self.l2 = self.vmcb12

    def write_debugctl(self, value: int) -> None:
        """svm_set_msr; always intercepted, but of an SEV-ES guest."""
        self.set_alone((value, self.alone()[1]))
        if self.always:
            self.hw = (value, self.hw[1])
            return
        self.exit()
        if self.place().dbgctl != value:
            self.place().dbgctl = value
            if "dirty" in self.fixes:
                self.current.dirty = 1
            self.update_lbrv()
        self.vmrun()

    def read(self) -> None:
        """RDMSR of LASTBRANCHFROMIP."""
        self.seen = self.read_lbr()
        if self.seen == "h":
            self.broken.add("P1")
        if self.seen != self.alone()[1]:
            self.broken.add("P21")

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
        then = self.then
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
        yield from self.nested_steps()

    def switch_host(self) -> None:
        self.host ^= 1
        self.hw = (self.host, self.hw[1])

    def read_host(self) -> None:
        if self.host and self.hw[1] not in ("", "h"):
            self.broken.add("P4")


def _start(sev_es: bool) -> State:
    one, two = Vmcb(lbrv=int(sev_es)), Vmcb()
    return (0, 0, 0, (0, ""), 0, (0, ""), int(not sev_es), one.cells(), two.cells(), (0, ""),
            (0, ""), (0, ""))


def ground(fixes: Iterable[str] = frozenset(FIXES), sev_es: bool = False) -> Ground:
    """The worlds of a KVM that has these fixes, and the first state."""
    fixes = frozenset(fixes)
    return lambda state: _World(state, fixes, sev_es), _start(sev_es)


def play(
    words: Iterable[str], fixes: Iterable[str] = frozenset(FIXES), sev_es: bool = False,
) -> Played:
    """Run what is written, in the words that `search` prints.

    Raises
    ------
    StateError
        Something cannot happen where it stands.
    """
    unpack, first = ground(fixes, sev_es)
    return plain_search.play(unpack(first), words)


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
    return plain_search.search(*ground(fixes, sev_es), until)
