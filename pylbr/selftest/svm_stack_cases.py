"""AMD's LbrExtV2: what a guest reads of its MSRs with the feature and without, and that the stacks
of L1 and L2 survive save and restore.

The steps are those of KVM's svm_lbr_nested_state, with the stack in the place of the one record.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pylbr.arch.registers import registers
from pylbr.cpu import Processor
from pylbr.errors import GeneralProtection
from pylbr.kvm.guest_cpuid import amd_debug_leaf
from pylbr.selftest.ktap import Case
from pylbr.selftest.svm_cases import RunAndReads, saved
from pylbr.verify.svm_stack import FIXES, MERGED, play

__all__ = ["stack_msr_cases", "stack_state_cases"]

_MODEL = "zen4"
_MSRS = ("DBG_EXTN_CFG", "LBR_SELECT", "SAMP_BR_")
_READ = "rdmsr SAMP_BR_FROM"
_L1 = ("L1 wrmsr DBG_EXTN_CFG", "L1 branch", f"L1 {_READ}")
#: What runs -> the steps, and what each read must see.
_RUNS: dict[str, RunAndReads] = {
    "L2 shares the stack of L1": (
        (*_L1, "L1 vmrun", "L2 branch", f"L2 {_READ}", "L2 exits to L1", f"L1 {_READ}"),
        ("L1a", "L2a", "L2a")),
    "L2 has LBR virtualization and a stack of its own": (
        (*_L1, "L1 vmrun with LBRV", f"L2 {_READ}", "L2 wrmsr DBG_EXTN_CFG", "L2 branch",
         f"L2 {_READ}", "L2 exits to L1", f"L1 {_READ}", "L1 vmrun with LBRV", f"L2 {_READ}"),
        ("L1a", "", "L2a", "L1a", "L2a")),
}
_FIRST = ("perf opens", "host branch", "VMRUN")
_HOST = ("exit", "host sample", "migrate", "host branch", "VMRUN")


def _saved(run: RunAndReads, each: bool, fixes: frozenset[str]) -> tuple[bool, list[str]]:
    """While the host records and samples."""
    return saved(partial(play, fixes=fixes), run, _FIRST, _HOST, each)


def stack_state_cases(fixes: Iterable[str] = frozenset(FIXES)) -> list[Case]:
    """L1 and L2 of a KVM that offers LbrExtV2, saved at each point alone and at every one.

    Parameters
    ----------
    fixes : iterable of str
        Names out of `pylbr.verify.svm_stack.FIXES` that KVM has.
    """
    fixes = frozenset(fixes)
    return [Case(f"LbrExtV2: {name}, {'at each point alone' if each else how}",
                 partial(_saved, run, each, fixes))
            for name, run in _RUNS.items()
            for each, how in ((True, ""), (False, "at every point of one run"))]


def _with() -> tuple[bool, list[str]]:
    """On a processor that has it, each register reads its value at reset and keeps what may be
    written; a reserved bit faults."""
    cpu, wrong = Processor(_MODEL), []
    rows = [row for row in registers(cpu.model).values() if row.name.startswith(_MSRS)]
    for row in rows:
        if cpu.rdmsr(row.index) != row.reset:
            wrong.append(f"{row.name} is not {row.reset:#x} at reset")
        for bit in range(64):
            try:
                cpu.wrmsr(row.index, row.reset | 1 << bit)
                if row.reserved_bits >> bit & 1:
                    wrong.append(f"{row.name} takes bit {bit}")
            except GeneralProtection:
                if not row.reserved_bits >> bit & 1:
                    wrong.append(f"{row.name} refuses bit {bit}")
        cpu.wrmsr(row.index, row.reset)
    eax, ebx, _, _ = cpu.cpuid(0x80000022)
    if not eax & 2 or ebx >> 4 & 0x3F != 16:
        wrong.append("CPUID leaf 8000_0022H does not show a stack of 16")
    return not wrong and len(rows) == 34, [f"{len(rows)} registers", *wrong[:5]]


def _without(release: str, sev_es: bool) -> tuple[bool, list[str]]:
    """KVM passes neither CPUID nor registers on: each access faults, recording or not."""
    eax, ebx, _, _ = Processor(_MODEL).cpuid(0x80000022)
    shown = amd_debug_leaf(eax, ebx, release)
    wrong = [] if not shown[0] & 2 and not shown[1] >> 4 else ["CPUID shows the feature"]
    words = ["perf opens", "host branch", "VMRUN", f"L1 {_READ}", "L1 wrmsr DBG_EXTN_CFG"]
    if not sev_es:
        words += ["L1 wrmsr DEBUGCTL", f"L1 {_READ}", "L1 vmrun with LBRV", f"L2 {_READ}"]
    played = play(words, MERGED[release], offered=False, sev_es=sev_es)
    if {*played.reads} != {"#GP"}:
        wrong.append(f"reads {' '.join(played.reads)}")
    return not wrong, wrong


def stack_msr_cases() -> list[Case]:
    """With the feature, and without it in both releases, for plain and SEV-ES guests."""
    return [Case("LbrExtV2: a processor that has it", _with), *(
        Case(f"LbrExtV2: a guest of Linux {release}{', SEV-ES' * sev_es}: every access faults",
             partial(_without, release, sev_es))
        for release in MERGED for sev_es in (False, True))]
