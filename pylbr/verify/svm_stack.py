"""SVM: the LBR stack of AMD's LbrExtV2, and what KVM makes of it.

Hardware, after the APM (vol. 2, 15.23.1): with LBR virtualization (LBRV) VMRUN saves the host's
DBG_EXTN_CFG and loads the guest's, #VMEXIT the other way round; the records and LBR_SELECT of the
guest are loaded by VMRUN and saved by #VMEXIT, and those of the host are not kept; the #VMEXIT of
an SEV-ES guest clears them.  Without LBRV nothing is switched.  VMCB clean bits are left out: every
VMRUN loads, since the manual does not state that a clean bit covers the stack.

KVM does not offer LbrExtV2 (`pylbr.kvm.guest_cpuid.amd_debug_leaf`): DBG_EXTN_CFG, LBR_SELECT and
SAMP_BR_FROM and TO are in no list of svm.c, always intercepted, and fault.  It sets LBRV by
DEBUGCTL.LBR alone (svm_update_lbrv), and copies DEBUGCTL and the one record between VMCBs
(svm_copy_lbrs).  perf of the host leaves LBRV2EN set when a guest is entered.  `offered` models a
KVM that passes the feature on; what it needs is in `FIXES`, each of which can be left out.

A stack of one entry is enough for whose records are seen.  The host's event excludes guests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pylbr.verify import plain_search
from pylbr.verify.plain_search import Found, Ground, Played, State
from pylbr.verify.svm_nested import Nested, Vmcb

__all__ = ["FIXES", "MERGED", "TITLES", "ground", "play", "search"]

#: Fix -> what it is.
FIXES = {
    "host-off": "without LBRV, KVM clears the host's LBRV2EN around the guest",
    "host-stack": "with LBRV, KVM puts the host's records aside before VMRUN and back after "
                  "#VMEXIT",
    "enable": "LBRV is on while the guest has LBRV2EN set, not only DEBUGCTL.LBR",
    "nested-stack": "DBG_EXTN_CFG and the records are copied with DEBUGCTL between VMCBs",
    "saved": "user space can save and restore the MSRs of the stack",
    "series": "LBRs are copied, and intercepts calculated, at every nested transition (the series "
              "of 2025-11-08)",
}
#: What merged KVM has of them, before that series and after it.
MERGED = {"6.1": frozenset[str](), "6.12": frozenset({"series"})}
#: Properties, as in `pylbr.verify.properties`.
TITLES = {
    "P1": "a guest reads a record of the host",
    "P4": "a host event that excludes guests sees a guest",
    "P5": "LBRV2EN is not what its owner set",
    "P21": "records are missing, of the host or a guest",
}
_FAULT = "#GP"


class _World(Nested):
    """One state, unpacked.

    The enable bit of `hw`, `l1` and `l2` is LBRV2EN; `kept` is the host's while the guest's is in,
    `aside` its record; `host` whether perf has an event, and the record that its window ends with;
    `vmcb12` DEBUGCTL.LBR, LBRV2EN and record of L2 as L1 sees them.
    """

    def __init__(self, state: State, fixes: frozenset[str], offered: bool, sev_es: bool) -> None:
        (self.level, self.nested, self.virt, self.hw, self.kept, self.aside, self.host,
         self.intercepted, one, two, self.vmcb12, self.l1, self.l2) = state
        self.one, self.two = Vmcb(*one), Vmcb(*two)
        self.fixes, self.offered, self.sev_es = fixes, offered, sev_es
        self.copies = self.recalculates = "series" in fixes
        self.always = sev_es
        self.broken = set()
        self.seen = None

    def state(self) -> State:
        return (self.level, self.nested, self.virt, self.hw, self.kept, self.aside, self.host,
                self.intercepted, self.one.cells(), self.two.cells(), self.vmcb12, self.l1,
                self.l2)

    def again(self) -> _World:
        return _World(self.state(), self.fixes, self.offered, self.sev_es)

    # ------------------------------------------------------------ the processor

    def vmrun(self) -> None:
        """By KVM, of the current VMCB."""
        vmcb = self.current
        if vmcb.lbrv:
            if "host-stack" in self.fixes:
                self.aside = self.hw[1]
            self.kept = self.hw[0]
            self.hw = (vmcb.ext, vmcb.rec)
        elif "host-off" in self.fixes:
            self.kept = self.hw[0]
            self.hw = (0, self.hw[1])
        self.level = 2 if self.nested else 1
        if self.offered and self.hw[0] != self.alone()[0]:
            self.broken.add("P5")

    def exit(self) -> None:
        """#VMEXIT."""
        vmcb = self.current
        if vmcb.lbrv:
            vmcb.ext, vmcb.rec = self.hw
            self.hw = (self.kept, "" if self.sev_es else self.hw[1])
            if "host-stack" in self.fixes:
                self.hw = (self.kept, self.aside)
        elif "host-off" in self.fixes:
            self.hw = (self.kept, self.hw[1])
        self.kept, self.aside, self.level = 0, "", 0
        if self.hw[0] != self.host[0]:
            self.broken.add("P5")

    def branch(self) -> None:
        tag = self.next_record()
        if self.hw[0]:
            self.hw = (1, tag)
        if self.level and self.alone()[0]:
            self.set_alone((1, tag))
        elif not self.level and self.host[0]:
            self.host = (1, tag)

    # ------------------------------------------------------------ KVM

    def enables(self, vmcb: Vmcb) -> bool:
        return bool(vmcb.dbgctl or ("enable" in self.fixes and vmcb.ext))

    def copy(self, to: Vmcb, of: Vmcb) -> None:
        to.dbgctl = of.dbgctl
        if "nested-stack" in self.fixes:
            to.ext, to.rec = of.ext, of.rec

    def load_vmcb12(self) -> None:
        self.two.dbgctl = self.vmcb12[0]
        if "nested-stack" in self.fixes:
            self.two.ext, self.two.rec = self.vmcb12[1:]

    def store_vmcb12(self) -> None:
        two = self.two
        self.vmcb12 = (two.dbgctl, two.ext, two.rec) if "nested-stack" in self.fixes else (
            two.dbgctl, *self.vmcb12[1:])

    def write_debugctl(self) -> None:
        """WRMSR of DEBUGCTL.LBR, the switch of the one record that this model leaves out."""
        self.exit()
        self.place().dbgctl ^= 1
        self.update_lbrv()
        self.vmrun()

    def write_enable(self) -> None:
        """WRMSR of DBG_EXTN_CFG: LBRV2EN is switched."""
        if not self.offered:
            self.seen = _FAULT
            return
        value = 1 - self.alone()[0]
        self.set_alone((value, self.alone()[1]))
        if self.sev_es:         # not intercepted
            self.hw = (value, self.hw[1])
            return
        self.exit()
        self.place().ext = value
        self.update_lbrv()
        self.vmrun()

    def read(self) -> None:
        """RDMSR of SAMP_BR_FROM."""
        if not self.offered:
            self.seen = _FAULT
            return
        self.seen = self.read_lbr()
        if self.seen == "h":
            self.broken.add("P1")
        if self.seen != self.alone()[1]:
            self.broken.add("P21")

    def migrate(self) -> None:
        """Saved by user space, and restored into a new vCPU."""
        self.intercepted = 1
        for vmcb in (self.one, self.two):
            if "saved" not in self.fixes:
                vmcb.ext, vmcb.rec = 0, ""
            vmcb.lbrv = 0
        self.update_lbrv()

    # ------------------------------------------------------------ the host

    def switch_host(self) -> None:
        """perf opens its event, which resets the records, or closes it."""
        self.host = (1 - self.host[0], "")
        self.hw = (self.host[0], "" if self.host[0] else self.hw[1])

    def sample(self) -> None:
        self.seen = self.hw[1]
        if self.seen.startswith("L"):
            self.broken.add("P4")
        elif self.seen != self.host[1]:
            self.broken.add("P21")

    # ------------------------------------------------------------ what can happen

    def successors(self) -> Iterator[tuple[str, _World]]:
        then = self.then
        if not self.level:
            yield then("host branch", "branch")
            yield then("VMRUN", "vmrun")
            yield then(f"perf {'closes' if self.host[0] else 'opens'}", "switch_host")
            if self.host[0]:
                yield then("host sample", "sample")
            if not self.sev_es:
                yield then("migrate", "migrate")
            return
        guest = f"L{self.level}"
        yield then("exit", "exit")
        yield then(f"{guest} branch", "branch")
        yield then(f"{guest} rdmsr SAMP_BR_FROM", "read")
        yield then(f"{guest} wrmsr DBG_EXTN_CFG", "write_enable")
        if not self.sev_es:
            yield then(f"{guest} wrmsr DEBUGCTL", "write_debugctl")
        yield from self.nested_steps()


def _start(sev_es: bool) -> State:
    one, two = Vmcb(lbrv=int(sev_es)), Vmcb()
    return (0, 0, 0, (0, ""), 0, "", (0, ""), int(not sev_es), one.cells(), two.cells(),
            (0, 0, ""), (0, ""), (0, ""))


def ground(
    fixes: Iterable[str] = frozenset(FIXES), *, offered: bool = True, sev_es: bool = False,
) -> Ground:
    """The worlds of a KVM that has these fixes, and the first state."""
    fixes = frozenset(fixes)
    return lambda state: _World(state, fixes, offered, sev_es), _start(sev_es)


def play(
    words: Iterable[str], fixes: Iterable[str] = frozenset(FIXES), *, offered: bool = True,
    sev_es: bool = False,
) -> Played:
    """Run what is written, in the words that `search` prints.

    Raises
    ------
    StateError
        Something cannot happen where it stands.
    """
    unpack, first = ground(fixes, offered=offered, sev_es=sev_es)
    return plain_search.play(unpack(first), words)


def search(
    fixes: Iterable[str] = frozenset(FIXES), *, offered: bool = True, sev_es: bool = False,
    until: str | None = None,
) -> Found:
    """All states of one vCPU, breadth first; what follows a broken property is not searched.

    Parameters
    ----------
    fixes : iterable of str
        Names out of `FIXES` that this KVM has; `MERGED` has those of releases.
    offered : bool
        CPUID shows LbrExtV2 to the guest, which no released KVM does.
    sev_es : bool
        The guest's registers are encrypted; it runs no guests.
    until : str, optional
        End as soon as this property is broken.
    """
    return plain_search.search(*ground(fixes, offered=offered, sev_es=sev_es), until)
