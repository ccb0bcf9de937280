"""pylbr: last-branch records without the hardware."""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # Looking it up costs more than everything else here.
    if name == "__version__":
        from importlib.metadata import version

        return version("pylbr")
    raise AttributeError(f"module 'pylbr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "__version__"])
