"""Results in the kernel's test format (Documentation/dev-tools/ktap.rst)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Case", "Group", "Skip", "report"]

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
            try:
                passed, remarks = case.run()
            except Skip as why:
                write(_line("  ", True, at, case.name, f" # SKIP {why}"))
                continue
            for remark in remarks:
                write(f"  # {remark}")
            xfail = not passed and not case.expected
            write(_line("  ", passed, at, case.name,
                        " # XFAIL documented of this policy" if xfail else ""))
            failed += not passed and not xfail
        write(_line("", not failed, number, group.name))
        failures += failed
    return failures
