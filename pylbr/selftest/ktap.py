"""Results in the kernel's test format (Documentation/dev-tools/ktap.rst)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Case", "Group", "Outcome", "Skip", "report", "results"]

#: What a case returns: remarks, one line each, and whether it passed; it may raise `Skip`.
Run = Callable[[], tuple[bool, list[str]]]


class Skip(Exception):
    """The case cannot be run here; the message gives the reason."""


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes
    ----------
    name : str
    run : callable
        Returns whether it passed, and remarks.
    expected : bool
        False: a failure is what the policy documents, and is marked as XFAIL.
    """

    name: str
    run: Run
    expected: bool = True


@dataclass(frozen=True)
class Group:
    """Tests that answer one request."""

    name: str
    cases: tuple[Case, ...]


def _line(indent: str, passed: bool, number: int, name: str, directive: str = "") -> str:
    text = name.replace("#", "\\#")
    return f"{indent}{'ok' if passed else 'not ok'} {number} {text}{directive}"


@dataclass(frozen=True)
class Outcome:
    """What a case came to.

    Attributes
    ----------
    name : str
    outcome : str
        ``pass``, ``fail``, ``xfail`` for a failure that the policy documents, or ``skip``.
    remarks : list of str
    why : str
        Why it was skipped.
    """

    name: str
    outcome: str
    remarks: list[str]
    why: str = ""

    @property
    def passed(self) -> bool:
        """Is its line ``ok``?"""
        return self.outcome in ("pass", "skip")


def _run(case: Case) -> Outcome:
    try:
        passed, remarks = case.run()
    except Skip as why:
        return Outcome(case.name, "skip", [], str(why))
    return Outcome(case.name, "pass" if passed else "fail" if case.expected else "xfail", remarks)


def results(groups: Iterable[Group]) -> dict:
    """Run all groups in order; what came out, as plain values.

    Returns
    -------
    dict
        ``groups``: for each its ``name``, ``passed`` and ``cases``, the attributes of `Outcome`;
        ``failures``: their number, without those that are documented.
    """
    told: list[dict[str, Any]] = []
    for group in groups:
        cases = [_run(case) for case in group.cases]
        told.append({"name": group.name, "cases": [asdict(case) for case in cases],
                     "passed": all(case.outcome != "fail" for case in cases)})
    return {"groups": told, "failures": sum(
        case["outcome"] == "fail" for group in told for case in group["cases"])}


def report(groups: Iterable[Group], write: Callable[[str], object]) -> int:
    """Run all groups in order and write a line for each case.

    Parameters
    ----------
    write : callable
        Is passed one line at a time, without its end.

    Returns
    -------
    int
        Number of failures, without those that are documented.
    """
    groups = list(groups)
    failures = 0
    write("KTAP version 1")
    write(f"1..{len(groups)}")
    for number, group in enumerate(groups, 1):
        write("  KTAP version 1")
        write(f"  # Subtest: {group.name}")
        write(f"  1..{len(group.cases)}")
        failed = 0
        for at, case in enumerate(group.cases, 1):
            done = _run(case)
            for remark in done.remarks:
                write(f"  # {remark}")
            directive = (f" # SKIP {done.why}" if done.outcome == "skip" else
                         " # XFAIL documented of this policy" if done.outcome == "xfail" else "")
            write(_line("  ", done.passed, at, case.name, directive))
            failed += done.outcome == "fail"
        write(_line("", not failed, number, group.name))
        failures += failed
    return failures
