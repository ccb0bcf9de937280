"""Policies that arbitrate the LBRs: one interface, one policy per file.

A module of this package registers its policies by a dict ``POLICIES``, name -> class or other
callable that makes one.  Another package's policy is an entry point of the group
``pylbr.policies``, whose name is the policy's and whose object is such a callable.
"""

from __future__ import annotations

import importlib
import pkgutil
import runpy
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from pylbr.arbitration import cython_file
from pylbr.arbitration.microsteps import Policy
from pylbr.errors import ConfigurationError

__all__ = [
    "ENTRY_POINT_GROUP", "POLICIES", "Policy", "as_called", "is_file", "known_flaws", "make_policy",
    "named", "register_file",
]

ENTRY_POINT_GROUP: Final = "pylbr.policies"

Maker = Callable[..., Policy]


def _installed(point: EntryPoint, **arguments: object) -> Policy:
    try:
        made = point.load()(**arguments)
    except Exception as error:
        raise ConfigurationError(f"policy {point.name!r} ({point.value}): {error}") from error
    if not isinstance(made, Policy):
        raise ConfigurationError(
            f"policy {point.name!r} ({point.value}): it makes a {type(made).__name__}, not a "
            f"pylbr.arbitration.Policy")
    return made


def _found() -> dict[str, Maker]:
    """Policies by name; an installed package replaces none of ours."""
    found: dict[str, Maker] = {
        point.name: partial(_installed, point) for point in entry_points(group=ENTRY_POINT_GROUP)}
    for module in pkgutil.iter_modules(__path__):
        found |= getattr(importlib.import_module(f"{__name__}.{module.name}"), "POLICIES", {})
    return dict(sorted(found.items()))


#: Name -> what makes the policy.
POLICIES: Final = _found()
_files: dict[str, str] = {}  # name -> the file that registered it


def is_file(policy: str) -> bool:
    """Whether a command line names a policy by its file, in Python or in Cython."""
    return policy.endswith((".py", ".pyx"))


def register_file(path: str) -> list[str]:
    """Register the policies of a file in Python or Cython, by its dict ``POLICIES``.

    Returns
    -------
    list of str
        Their names.

    Raises
    ------
    ConfigurationError
        It cannot be read, compiled or run, or registers nothing.
    UnsupportedFeature
        It is in Cython, and Cython or a C compiler is missing.
    """
    if path.endswith(".pyx"):
        found = getattr(cython_file.load(path), "POLICIES", None)
    else:
        try:
            found = runpy.run_path(path).get("POLICIES")
        except Exception as error:
            raise ConfigurationError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ConfigurationError(f"{path}: it has no policy; write POLICIES = {{'name': Class}}")
    for name, maker in found.items():
        POLICIES[str(name)] = maker
        if not isinstance(made := maker(), Policy):
            del POLICIES[str(name)]
            raise ConfigurationError(f"{path}: policy {name!r} is a {type(made).__name__}, not a "
                                     "pylbr.arbitration.Policy")
        _files[str(name)] = path
    return [str(name) for name in found]


def as_called(policy: str) -> str:
    """A policy as a command line names it: by the file that registered it, or by its name."""
    return _files.get(policy, policy)


def named(policies: Iterable[str]) -> list[str]:
    """Names of policies as a command line has them: a file ``NAME.py`` or ``NAME.pyx`` is
    registered, and stands for its policies."""
    return [name for policy in policies
            for name in (register_file(policy) if is_file(policy) else [policy])]


def make_policy(name: str, flaws: Iterable[str] = ()) -> Policy:
    """The policy `name`, with further `flaws` (names out of `known_flaws`).

    ``NAME-lazy`` is a policy with one owner that gives a guest the registers when it sets LBREn.

    Raises
    ------
    ConfigurationError
        There is no such policy, it has no such flaw, or it cannot be loaded.
    """
    base = name.removesuffix("-lazy")
    if base != name and base in POLICIES:
        try:
            return POLICIES[base](lazy=True)
        except TypeError:
            how = ("passes LBRs through lazily itself" if POLICIES[base]().lazy else
                   "does not pass LBRs through lazily")
            raise ConfigurationError(f"policy {base} {how}; there is no {name!r}") from None
    if name not in POLICIES:
        raise ConfigurationError(
            f"there is no policy {name!r}; policies are {', '.join(POLICIES)}")
    policy = POLICIES[name]()
    flaws = frozenset(flaws)
    if not flaws:
        return policy
    known = known_flaws(policy)
    for flaw in sorted(flaws - known.keys()):
        raise ConfigurationError(f"policy {name} has no flaw {flaw!r}; it has "
                                 f"{', '.join(known) or 'none'}")
    return POLICIES[name](flaws=flaws | getattr(policy, "flaws", frozenset()))


def known_flaws(policy: Policy) -> dict[str, tuple[int, str] | tuple[int, str, str]]:
    """Bugs that the code after which a policy is modelled has or had: name -> (bit, what it is[,
    feature that shows it])."""
    return getattr(policy, "FLAWS", {})
