"""Public bugs of LBR arbitration, each modelled as the code was, and found by the search.

Where the source allows it nothing is planted: the policy is the code as it was merged or posted,
and the ground defines what may happen.  Where several bugs of one series would hide one another,
the bug is left in the code that has all others fixed.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from pylbr.errors import LbrError, StateError
from pylbr.verify import svm, svm_stack
from pylbr.verify.models import Configuration, explore
from pylbr.verify.script import broken_in, play, read
from pylbr.verify.story import Story, story_of
from pylbr.verify.suites import by_design
from pylbr.verify.words import STEPS

__all__ = ["BUGS", "Bug", "Caught", "catch", "catch_all"]

_ONE = {"guests": 1, "depth": 1, "kinds": (), "features": ()}
_V2 = "series of 2022-11-24"
_TREE = "public tree, 2025"
_SVM = "series of 2025-11-08"
_PINNED: dict[str, Any] = {"kinds": ("cpu-exclude",)}


@dataclass(frozen=True)
class Bug:
    """One bug.

    Attributes
    ----------
    what : str
    source : str
        Commit, CVE, or where it is discussed.
    property : str
        What it breaks.
    policy : str
        The code as it was; ``svm-6.1`` and ``svm`` for `pylbr.verify.svm` of Linux 6.1 and 6.12,
        ``svm-stack`` for `svm_stack`.
    flaws : tuple of str
        Left in code that has all other bugs fixed; empty: the code as it was.
    ground : dict
        What may happen: arguments of `Configuration`, or of the search of svm and svm-stack.
    """

    what: str
    source: str
    property: str
    policy: str
    flaws: tuple[str, ...] = ()
    ground: dict = field(default_factory=dict)

    @builtins.property  # not the field
    def model(self) -> str:
        """The code that is searched, as a command line has it."""
        return self.policy + "".join(f" +{flaw}" for flaw in self.flaws)


@dataclass(frozen=True)
class Caught:
    """What the search made of a bug.

    Attributes
    ----------
    bug : Bug
    states : int
    words : tuple of str
        The shortest way, one word for each micro-step.
    story : Story or None
        To be replayed; None of svm and svm-stack.
    """

    bug: Bug
    states: int
    words: tuple[str, ...]
    story: Story | None

    def told(self) -> str:
        """The story in one line, without the micro-steps that follow of themselves."""
        if self.story is None:
            return "; ".join(self.words)
        last = max(i for i, word in enumerate(self.words) if word not in STEPS)
        items = [word for i, word in enumerate(self.words) if word not in STEPS or i > last]
        text = "; ".join(items)
        try:
            steps = play(read(text, self.bug.policy, self.bug.flaws))
        except StateError:
            return "; ".join(self.words)
        return text if self.bug.property in broken_in(steps) else "; ".join(self.words)


def _legacy(
    what: str, source: str, broken: str, policy: str = "kvm-legacy", **ground: object,
) -> Bug:
    return Bug(what, source, broken, policy, (), ground)


def _series(what: str, broken: str, flaw: str = "", **ground: object) -> Bug:
    return Bug(what, _V2, broken, "arch-lbr-v2-fixed" if flaw else "arch-lbr-v2",
               (flaw,) if flaw else (), ground)


def _tree(what: str, broken: str, **ground: object) -> Bug:
    return Bug(what, _TREE, broken, "mediated-arch-lbr", (), ground)


def _svm(what: str, source: str, broken: str, left_out: str = "", **ground: object) -> Bug:
    return Bug(what, source, broken, "svm" if left_out else "svm-6.1",
               (f"without-{left_out}",) if left_out else (), ground)


def _stack(what: str, broken: str, **ground: object) -> Bug:
    return Bug(what, "found here, svm.c, amd/lbr.c of 6.12; APM 15.23.1", broken, "svm-stack", (),
               ground)


BUGS = (
    _legacy("the guest's event passes by the shared filter: a host event is scheduled beside it",
            "097e4311cda9, mail of 2023-06", "P20", **_PINNED),
    _legacy("a guest that first touches an LBR beside a pinned event reads the host's records",
            "the same", "P1", **_PINNED),
    _legacy("branches of an excluded guest reach the host's stack",
            "mail of 2023-08", "P4", "kvm-legacy-designed", features=("nmi",), **_PINNED),
    _legacy("the guest's event, once in ERROR, is never enabled again",
            "8e12911b243e", "P21", "kvm-legacy-designed", **_PINNED),
    _legacy("a release that looks at the enable bit loses the sample that the freeze has made",
            "9aa4f622460f", "P21", features=("vpmi",)),
    _legacy("user space saves neither records nor DEBUGCTL", "Linux 6.1", "P21",
            features=("migrate",)),
    _legacy("user space saves DEBUGCTL and no record", "Linux 6.12", "P21", "kvm-legacy-6.12",
            features=("migrate",)),
    _legacy("the host's DEBUGCTL is read with interrupts on", "189ecdb3e112", "P5",
            "kvm-legacy-2024", **_PINNED),
    _legacy("a host event's PEBS records have the branches of a guest beside it",
            "found here, ds.c of 6.1", "P4", features=("pebs",), kinds=("cpu-pebs",)),
    _legacy("a #DB that is injected again leaves DEBUGCTL.LBR set", "found here, vmx.c of 6.1",
            "P5", features=("db",)),
    _legacy("a guest's PEBS records hold the LBRs of any owner", "CVE-2024-26992, 9e985cbf2942",
            "P1", "kvm-legacy-2024", features=("pebs",), **_PINNED),
    Bug("a PMI of the host clears the guest's LBR bit in the VMCS", "found here, vmx.h", "P5",
        "kvm-legacy-designed", ("host-pmi-freezes",), {"features": ("vpmi",), **_PINNED}),
    Bug("«ACTIVE?» and the access are two steps", "what pmu_intel.c:316 guards against", "P6",
        "kvm-legacy-designed", ("check-with-irqs-on",), dict(_PINNED)),
    _series("patch 10: the host's LBR_CTL is cleared at VM exit and not put back", "P5", **_PINNED),
    _series("patch 11: XSAVES reads the registers while the host has them", "P1",
            features=("xsaves",), **_PINNED),
    _series("patch 8: user space saves CTL and DEPTH and no record", "P21", features=("migrate",)),
    _series("patch 12: INIT clears LBREn", "P5", features=("init",)),
    _series("patch 12: a #DB does not clear LBREn", "P5", features=("db",)),
    _series("patch 13: RSM restores more than LBREn", "P5", features=("smm",)),
    _series("a reset by DEPTH leaves LER, which another guest saves", "P2", guests=2,
            features=("fault", "xsaves")),
    _series("patch 6: LBREn is cleared when the PMI is injected, not when it comes", "P5",
            features=("vpmi", "migrate")),
    _series("patch 6: nothing carries LBR_CTL between vmcs01 and vmcs02", "P5",
            features=("nested",)),
    _series("a counter of the host that overflows before VM entry: LBR_FRZ stops the guest's LBRs",
            "P1'", features=("host-freeze",), kinds=("cpu-flexible",)),
    _series("FREEZE_LBRS_ON_PMI of the host is read at vcpu_load: later PMIs freeze nothing", "P5",
            "stale-debugctl", features=("host-freeze",), **_PINNED),
    _series("patch 5: a DEPTH write resets the host's records", "P6", "depth-outside-check",
            features=("depth",), **_PINNED),
    _series("patch 14: intercepted records are read from the registers, whose ever they are", "P1",
            "raw-data-msrs", **_PINNED),
    _series("patch 10: L1's controls for LBR_CTL are accepted and dropped", "P5", "nested-dropped",
            features=("nested",)),
    _series("patch 6: vmcs12 gets DEBUGCTL with bit 0", "P5", "vmcs12-debugctl",
            features=("nested",)),
    _series("LBR_CTL of the guest is loaded while the host has the registers", "P4",
            "ctl-loaded-when-reclaimed", features=("nmi",), **_PINNED),
    _tree("a guest that never set LBREn reads the host's records by XSAVES", "P1",
          features=("xsaves",), **_PINNED),
    _tree("the same by a PEBS record", "P1", features=("pebs",), **_PINNED),
    _tree("XRSTORS of such a guest writes what the host samples", "P4",
          features=("xrstors", "nmi"), **_PINNED),
    _tree("put resets by DEPTH: another guest reads LER", "P2", guests=2,
          features=("fault", "xsaves")),
    _tree("XSTATE_BV stays 0: records written before LBREn = 1 are lost", "P21",
          features=("write",)),
    _tree("the same loses all records of a vCPU that is restored", "P21", features=("migrate",)),
    _tree("LER cannot be saved", "P7", features=("migrate", "fault")),
    _tree("a reset leaves the records", "P21", features=("reset",)),
    _svm("the guest runs with the host's DEBUGCTL while LBRV is off", "433265870ab3", "P5"),
    _svm("a write of DEBUGCTL does not mark VMCB_LBR dirty", f"dc55b3c3f612, {_SVM}", "P5",
         "dirty"),
    _svm("intercepts stay as L2 left them: L1 reads the host's LBRs", f"fbe5e5f030c2, {_SVM}",
         "P1"),
    _svm("LBRs move between vmcb01 and vmcb02 only when LBRV is switched", f"8a4821412cf2, {_SVM}",
         "P21", "nested-copy"),
    _svm("user space cannot save the LBR MSRs", _SVM, "P21"),
    _svm("LBRV of an SEV-ES guest is switched off: VMRUN fails", "b7e4be0a224f", "P5", sev_es=True),
    _stack("LBRV2EN of the host stays set: a guest's branches reach an excluding event", "P4"),
    _stack("VMRUN with LBRV loads the guest's stack, the host's records are lost", "P21"),
    _stack("every #VMEXIT of an SEV-ES guest clears the host's stack", "P21", sev_es=True),
)


def catch(bug: Bug) -> Caught:
    """Search the code that has the bug.

    Raises
    ------
    LbrError
        The search does not break the bug's property.
    """
    if bug.policy.startswith("svm"):
        left_out = {flaw.removeprefix("without-") for flaw in bug.flaws}
        found = (svm_stack.search(svm_stack.MERGED["6.12"], offered=False, until=bug.property,
                                  **bug.ground) if bug.policy == "svm-stack" else
                 svm.search(svm.MERGED["6.1" if bug.policy == "svm-6.1" else "6.12"] - left_out,
                            until=bug.property, **bug.ground))
        if bug.property not in found.broken:
            raise LbrError(f"{bug.what}: {bug.property} is not broken")
        return Caught(bug, found.states, tuple(found.broken[bug.property]), None)
    configuration = Configuration(bug.policy, bug.flaws, **{**_ONE, **bug.ground})
    result = explore(configuration, ignore=by_design(bug.policy))
    if bug.property not in result.broken:
        raise LbrError(f"{bug.what}: {bug.property} is not broken")
    story = story_of(configuration, bug.property, result.broken[bug.property])
    return Caught(bug, result.states, tuple(step["word"] for step in story.replay()), story)


def catch_all(
    report: Callable[[str], None] | None = None, policies: Collection[str] = (),
) -> Iterator[Caught]:
    """Every bug of the table, or those of `policies`."""
    for bug in BUGS:
        if policies and bug.policy not in policies:
            continue
        if report:
            report(bug.what)
        yield catch(bug)
