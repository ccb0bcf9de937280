"""AMD's LBRs of one record: L1 and L2 keep theirs whenever the vCPU is saved and restored.

What KVM's selftest svm_lbr_nested_state looks at, on `pylbr.verify.svm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pylbr.errors import StateError
from pylbr.selftest.ktap import Case
from pylbr.verify.plain_search import Played
from pylbr.verify.svm import FIXES, play

__all__ = ["RunAndReads", "saved", "svm_cases"]

RunAndReads = tuple[tuple[str, ...], tuple[str, ...]]
_READ = "rdmsr LASTBRANCHFROMIP"
_L1 = ("L1 wrmsr DEBUGCTL 1", "L1 branch", f"L1 {_READ}")
#: What runs -> the steps, and what each read must see.
_RUNS: dict[str, RunAndReads] = {
    "L2 shares the record of L1": (
        (*_L1, "L1 vmrun", "L2 branch", f"L2 {_READ}", "L2 exits to L1", f"L1 {_READ}",
         "L1 branch", "L1 wrmsr DEBUGCTL 0", f"L1 {_READ}"),
        ("L1a", "L2a", "L2a", "L1a")),
    "L2 has LBR virtualization and a record of its own": (
        (*_L1, "L1 vmrun with LBRV", f"L2 {_READ}", "L2 wrmsr DEBUGCTL 1", "L2 branch",
         f"L2 {_READ}", "L2 exits to L1", f"L1 {_READ}", "L1 vmrun with LBRV", f"L2 {_READ}",
         "L2 wrmsr DEBUGCTL 0", "L2 exits to L1", "L1 branch", f"L1 {_READ}"),
        ("L1a", "", "L2a", "L1a", "L2a", "L1b")),
    "L2 starts first, L1 records after it": (
        ("L1 vmrun with LBRV", "L2 wrmsr DEBUGCTL 1", "L2 branch", "L2 exits to L1",
         f"L1 {_READ}", *_L1),
        ("", "L1a")),
}
_HOST = ("exit", "migrate", "host branch", "VMRUN")


_FIRST = ("host sets DEBUGCTL.LBR to 1", "host branch", "VMRUN")


def saved(
    play: Callable[[list[str]], Played], run: RunAndReads, first: Iterable[str],
    host: Iterable[str], each: bool,
) -> tuple[bool, list[str]]:
    """Save and restore before each step of a run, alone or all.

    Parameters
    ----------
    play : callable
        Of a model of `pylbr.verify`: plays words.
    run : (steps, reads)
        What runs, and what each read of a guest must see.
    first, host : iterable of str
        What comes before the run, and what the host does at each point.
    each : bool
        At each point alone, or at every point of one run.
    """
    steps, wanted = run
    numbers = range(len(steps))
    wrong = []
    for points in ([n] for n in numbers) if each else [[*numbers]]:
        words = [*first]
        for number, step in enumerate(steps):
            words += [*(host if number in points else ()), step]
        try:
            played = play(words)
        except StateError as error:     # a control bit that is lost already is not written again
            wrong.append(str(error))
            continue
        reads = tuple(read for read in played.reads if read != "h")
        if reads != wanted or played.broken:
            wrong.append(f"saved before step {', '.join(str(1 + n) for n in points)}: reads "
                         f"{' '.join(read or '-' for read in reads)}; broken: "
                         f"{', '.join(played.broken) or 'nothing'}")
    return not wrong, [f"{len(steps)} points", *wrong]


def _saved(run: RunAndReads, each: bool, fixes: frozenset[str]) -> tuple[bool, list[str]]:
    return saved(partial(play, fixes=fixes), run, _FIRST, _HOST, each)


def svm_cases(fixes: Iterable[str] = frozenset(FIXES)) -> list[Case]:
    """L1 and L2, saved at each point alone and at every point of one run.

    Parameters
    ----------
    fixes : iterable of str
        Names out of `pylbr.verify.svm.FIXES` that KVM has.
    """
    fixes = frozenset(fixes)
    return [Case(f"svm_lbr_nested_state: {name}, {'at each point alone' if each else how}",
                 partial(_saved, run, each, fixes))
            for name, run in _RUNS.items()
            for each, how in ((True, ""), (False, "at every point of one run"))]
