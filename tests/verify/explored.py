"""Searches that several tests look at, each made once per process."""

from functools import cache

from pylbr.verify import bugs
from pylbr.verify.models import explore
from pylbr.verify.suites import hunt

#: What policies break without a flaw, ground by ground, for every hunt.
_BASES = {}


@cache
def _explored(configuration, ignore):
    return explore(configuration, ignore=ignore)


def explored(configuration, ignore=()):
    """`pylbr.verify.models.explore`; the result is shared, and only looked at."""
    return _explored(configuration, tuple(ignore))


@cache
def hunted(policy, flaw):
    """`pylbr.verify.suites.hunt`."""
    return hunt(policy, flaw, _BASES)


_catch = bugs.catch
_CAUGHT = {}


def caught(bug):
    """`pylbr.verify.bugs.catch`."""
    if bug.what not in _CAUGHT:
        _CAUGHT[bug.what] = _catch(bug)
    return _CAUGHT[bug.what]
