"""Modules of packages that ``pip install pylbr`` leaves out, imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Final

from pylbr.errors import UnsupportedFeature

__all__ = ["EXTRAS", "Extra", "missing", "needed"]

#: Package -> the extra of pylbr that brings it, and what it is for.
EXTRAS: Final = {
    "pyarrow": ("arrow", "Arrow and Parquet files, and tables of them,"),
    "pandas": ("pandas", "pandas data frames"),
    "polars": ("polars", "Polars data frames"),
    "unicorn": ("unicorn", "guests and emulated programs"),
    "distributed": ("dask", "workers of a cluster"),
    "fsspec": ("remote", "URLs"),
}


def needed(module: str) -> ModuleType:
    """Import a module of a package in `EXTRAS`.

    Raises
    ------
    UnsupportedFeature
        It is not installed, or cannot be imported; with the call of pip that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UnsupportedFeature(missing(error) or str(error)) from None
    except ImportError as error:
        raise UnsupportedFeature(
            f"{module} is installed, but cannot be imported: {error}") from None


def missing(error: ModuleNotFoundError) -> str:
    """What to install where `error` is about a package in `EXTRAS`; empty if it is not."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return ""
    extra, purpose = EXTRAS[package]
    return f"{purpose} need {package}: pip install 'pylbr[{extra}]'"


class Extra:
    """Stands for a module of a package in `EXTRAS`, which the first use of a name imports.

    Parameters
    ----------
    module : str
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        """Attribute `name` of the module; raises as `needed` does."""
        if name.startswith("__"):  # asked for by copy, inspect and the like
            raise AttributeError(name)
        return getattr(needed(self._module), name)
