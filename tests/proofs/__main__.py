"""`python -m tests.proofs`: prove the facility at every depth, then find every planted fault."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.proofs.facility import DEPTHS, compiled, prove
from tests.proofs.planted import PLANTED, plant
from tests.proofs.theorems import Theorems

ROOT = Path(__file__).resolve().parents[2]


def library(folder: Path) -> Path:
    """Directory with the library's C file, made of what Cython made of this checkout."""
    subprocess.run([sys.executable, ROOT / "lbrcore" / "library" / "amalgamate.py", folder],
                   check=True)
    return folder


def found(source: Path, folder: Path, name: str, clang: str) -> str:
    """With which values the theorem that a planted fault breaks does not hold; empty if it does."""
    folder.mkdir()
    shutil.copy(source / "lbrcore_inline.h", folder)
    (folder / "lbrcore.c").write_text(plant((source / "lbrcore.c").read_text(), name))
    _, _, flavour, part = PLANTED[name]
    theorems = getattr(Theorems(compiled(folder, folder, clang), flavour, 8), part)()
    return next(filter(None, (prove(goal) for _, goal in theorems)), "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("--clang", default="clang-14", help="a clang with typed pointers")
    options = parser.parse_args()
    failed, start = 0, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        source = library(Path(folder) / "source")
        module = compiled(source, Path(folder), options.clang)
        for flavour, depths in DEPTHS.items():
            for depth in depths:
                for theorem, goal in Theorems(module, flavour, depth):
                    counter = prove(goal)
                    failed += bool(counter)
                    print(("architectural", "legacy")[flavour], depth, theorem,
                          f": NOT PROVED: {counter}" if counter else ": proved", flush=True)
        for number, name in enumerate(PLANTED):
            counter = found(source, Path(folder) / str(number), name, options.clang)
            failed += not counter
            print("planted:", name, ": found" if counter else ": NOT FOUND", flush=True)
    print(f"{failed} failures, {time.process_time() - start:.0f} s of CPU time")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
