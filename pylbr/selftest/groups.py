"""What the review of virtual LBRs asked for, one group of tests for each request."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pylbr.selftest.debugctl_cases import debugctl_cases
from pylbr.selftest.guest_cases import contention_cases, guest_cases, saved_cases
from pylbr.selftest.ktap import Group
from pylbr.selftest.msr_cases import msr_cases
from pylbr.selftest.search_cases import matrix_cases, search_cases
from pylbr.selftest.svm_cases import svm_cases
from pylbr.selftest.svm_stack_cases import stack_msr_cases, stack_state_cases

__all__ = ["groups"]


def groups(
    directory: Path, model: str, policy: str, points: int, only: Collection[str] | None = None,
) -> list[Group]:
    """The groups that are asked for.

    Parameters
    ----------
    directory : Path
        Where guests are built and machines saved.
    points : int
        At how many points of its run a guest is saved and restored.
    only : collection of str, optional
        Names out of works, state, msrs and contention; by default all.
    """
    each = {
        "works": lambda: Group("request 1: it works", tuple(guest_cases(directory, model))),
        "state": lambda: Group("request 2: it survives save and restore",
                               (*saved_cases(directory, model, policy, points), *svm_cases(),
                                *stack_state_cases())),
        "msrs": lambda: Group("request 3: MSRs can and cannot be accessed as CPUID enumerates",
                              (*msr_cases(model, policy), *debugctl_cases(), *stack_msr_cases())),
        "contention": lambda: Group(
            "request 4: host and guest contend without a leak",
            (*contention_cases(directory, model, policy), *matrix_cases(policy),
             *search_cases(policy))),
    }
    return [made() for name, made in each.items() if not only or name in only]
