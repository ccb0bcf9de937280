"""Plain C beside which rows are measured, compiled when it is needed."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lbrcore
from lbrcore import ENTRY_DTYPE
from pylbr.errors import UnsupportedFeature
from pylbr.record.parts import compiler

__all__ = ["Ring", "api", "compiled", "replay_ring"]

_HERE = Path(__file__).parent
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t


@cache
def compiled(name: str) -> ctypes.CDLL:
    """A source file of this package as a library, compiled with -O3.

    Raises
    ------
    UnsupportedFeature
        There is no C compiler, or it fails.
    """
    words = compiler()
    if words is None:
        raise UnsupportedFeature("no C compiler")
    with tempfile.TemporaryDirectory(prefix="pylbr-") as place:
        target = f"{place}/{name}.so"
        done = subprocess.run(
            [*words, "-O3", "-shared", "-fPIC", f"-I{lbrcore.get_include()}",
             str(_HERE / f"{name}.c"), "-o", target], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnsupportedFeature(f"{words[-1]} fails: {done.stderr.strip().splitlines()[-1:]}")
        library = ctypes.CDLL(target)
    if name == "floor":
        _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    library.ring_new.restype = _POINTER
    library.ring_new.argtypes = [ctypes.c_uint64]
    for name in ("ring_plain", "ring_filtered", "ring_branchy"):
        getattr(library, name).argtypes = [_POINTER, _POINTER, _SIZE]
    library.ring_called.argtypes = [_POINTER, _POINTER, _SIZE, _SIZE]
    library.table_record.argtypes = [_POINTER, _POINTER, _POINTER, _SIZE, _SIZE]
    library.table_pack.argtypes = [_POINTER, _POINTER, _POINTER, _SIZE]
    library.table_unpack.argtypes = [_POINTER, _POINTER, _POINTER, _SIZE]
    library.copy_808.argtypes = [_POINTER, _POINTER, _SIZE]
    library.create.restype = _POINTER
    library.create.argtypes = [_POINTER, ctypes.c_uint64]


def api() -> int:
    """Address of the core's table of C functions."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = _POINTER, [ctypes.py_object, ctypes.c_char_p]
    found: int = get(lbrcore._C_API, b"lbrcore._C_API")
    return found


class Ring:
    """The core's alternative: a ring of records in plain C.

    Parameters
    ----------
    accepted : int
        Truth table of the filtered forms.
    """

    def __init__(self, accepted: int = 0) -> None:
        self.library = compiled("floor")
        self._ring = self.library.ring_new(accepted)

    def record(self, branches: NDArray[np.void], form: str = "ring_plain") -> None:
        """Record rows of `BRANCH_DTYPE`."""
        getattr(self.library, form)(self._ring, branches.ctypes.data, len(branches))


def replay_ring(
    columns: dict[str, NDArray[np.generic]], n: int, counted: int, period: int
) -> NDArray[np.void]:
    """Samples of a trace in columns: every branch goes into a ring in plain C."""
    call = compiled("replay_floor").replay_ring
    call.restype = _SIZE
    call.argtypes = [_POINTER] * 5 + [_SIZE, ctypes.c_uint32, ctypes.c_uint64, _POINTER]
    out = np.empty((n // period + 1, 32), ENTRY_DTYPE)
    pointers = [columns[name].ctypes.data for name in ("from", "to", "class", "flags", "cycles")]
    found: NDArray[np.void] = out[:call(*pointers, n, counted, period, out.ctypes.data)]
    return found
