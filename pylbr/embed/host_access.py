"""Accesses of the host to a processor that an engine drives: exact before and after each."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pylbr.cpu import Processor

__all__ = ["HostAccess", "own"]

#: What reads or changes registers, counters or records.
_ACCESSES = ("rdmsr", "wrmsr", "xsetbv", "xsaves", "xrstors", "records", "state")
P = ParamSpec("P")
T = TypeVar("T")
L = TypeVar("L", bound="_Inside")


class _Inside(Protocol):
    inside: bool


class _Link(_Inside, Protocol):
    processor: Processor

    def before_access(self) -> None: ...
    def after_access(self) -> None: ...


def own(method: Callable[Concatenate[L, P], T]) -> Callable[Concatenate[L, P], T]:
    """Accesses inside `method` are the link's own: it synchronises by itself."""

    @wraps(method)
    def call(link: L, /, *args: P.args, **options: P.kwargs) -> T:
        outer, link.inside = link.inside, True
        try:
            return method(link, *args, **options)
        finally:
            link.inside = outer

    return call


class HostAccess:
    """Lets a link take in what was executed before each access, and act on it after.

    The processor's own methods come back with `remove`.
    """

    def __init__(self, link: _Link) -> None:
        self._processor = link.processor
        self._replaced = {name: vars(link.processor).get(name) for name in _ACCESSES}
        for name in _ACCESSES:
            setattr(link.processor, name, _between(name, self._replaced[name], link))

    def remove(self) -> None:
        """Undo it."""
        for name, before in self._replaced.items():
            if before is None:
                delattr(self._processor, name)
            else:
                setattr(self._processor, name, before)


def _between(name: str, method: Callable[..., Any] | None, link: _Link) -> Callable[..., Any]:
    """The processor's method of that name, or what stands for it already."""
    processor = link.processor

    @wraps(getattr(processor, name))
    def call(*args: Any, **options: Any) -> Any:
        access = method or getattr(type(processor), name).__get__(processor)
        if link.inside:
            return access(*args, **options)
        link.inside = True
        try:
            link.before_access()
            result = access(*args, **options)
            link.after_access()
            return result
        finally:
            link.inside = False

    return call
