"""liblbrcore from C: one record by a call and inlined, beside a plain C ring in the same run."""

import ctypes
import subprocess
import sys

import pytest

from bench.conftest import HERE
from tests.manual import RECORD_ALL

N = 200_000
JUMP = 2


#: Way, what it stands beside, and at most how many times its time.
ROWS = [
    ("by_call", "ring_by_call", 1.5), ("by_inline", "ring_by_inline", 2),
    ("kind_by_call", "ring_kind_by_call", 1.5), ("kind_by_inline", "ring_kind_by_inline", 2),
    ("held_by_inline", "ring_kind_by_inline", 2), ("held_by_call", "ring_kind_by_call", 1.5),
    # What a call with these arguments costs that does nothing.
    ("kind_by_call", "nothing_by_call", 3), ("held_by_call", "nothing_by_held", 2),
]


@pytest.fixture(scope="module", params=["-O2 --libs", "-O2 --static", "-O3 --static"])
def built(request, tmp_path_factory):
    """library_floor.c as a user's program is built: ours and the ring alike, in one object."""
    level, kind = request.param.split()
    flags = subprocess.run([sys.executable, "-m", "lbrcore", "--cflags", kind], check=True,
                           capture_output=True, text=True).stdout.split()
    target = tmp_path_factory.mktemp("library") / "floor.so"
    subprocess.run(["gcc", level, "-shared", "-fPIC", "-fno-tree-slp-vectorize",
                    "-Wl,-Bsymbolic-functions",
                    str(HERE / "library_floor.c"), *flags, "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.ring_new.restype = library.facility.restype = pointer
    library.facility.argtypes = [ctypes.c_uint64]
    for name in {way for row in ROWS for way in row[:2]}:
        getattr(library, name).argtypes = [pointer, size, ctypes.c_uint8]
    return library


@pytest.mark.parametrize("way, rival, goal", ROWS)
def test_one_record(versus, built, way, rival, goal):
    state, ring = built.facility(RECORD_ALL), built.ring_new()
    assert state
    call, other = getattr(built, way), getattr(built, rival)
    versus(lambda: call(state, N, JUMP), lambda: other(ring, N, JUMP), N,
           name="C ring" if "ring" in rival else "an empty call", limit=goal)
