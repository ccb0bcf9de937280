"""All 2**32 MSR numbers of every model, read and written, on the processor of liblbrcore.

    python -m tests.cpu.numbers                          every model
    python -m tests.cpu.numbers zen4 nehalem --jobs 1 --done numbers.json

A number answers if RDMSR, or WRMSR of 0, does not fault; of those each bit alone is written.
The numbers are compared with the table by hand (`tests.cpu.sweep.EXPECTED`) or, of models that it
lacks, with the rows.  What is done stands in the file `--done`, from which a next run continues.
The digest is over all answers, their values and bits.  Exits with 1 if a set differs.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pylbr.arch import MODELS, registers
from tests.core.library import ROOT, generate
from tests.cpu.sweep import EXPECTED

ANSWER = np.dtype([("index", "u4"), ("read", "i4"), ("wrote", "i4"), ("value", "u8"),
                   ("accepted", "u8"), ("stored", "u8")], align=True)
CHUNK, ROOM, END = 1 << 27, 1024, 1 << 32


class Numbers:
    """The loop, compiled together with the library's C file."""

    def __init__(self, folder: Path) -> None:
        built, library = folder / "numbers.so", generate(folder / "library")
        subprocess.run(
            [*os.environ.get("CC", "cc").split(), "-O3", "-w", "-shared", "-fPIC",
             f"-I{ROOT}/lbrcore/include", f"-I{ROOT}/lbrcore/library", f"-I{library}",
             "-include", library / "lbrcore.c", "-o", built, Path(__file__).with_suffix(".c")],
            check=True)
        self._call = ctypes.CDLL(str(built)).numbers
        self._call.restype = ctypes.c_ssize_t
        self._call.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64,
                               ctypes.c_void_p, ctypes.c_size_t]

    def __call__(self, model: str, first: int, last: int) -> np.ndarray:
        """What answers of [first, last): rows of `ANSWER`."""
        found = np.zeros(ROOM, ANSWER)
        count = self._call(model.encode(), first, last, found.ctypes.data, ROOM)
        assert 0 <= count <= ROOM, f"{model}, {first:#x}: a refused access changed the processor"
        return found[:count]


def wanted(model: str) -> set[int]:
    """The numbers that the model has: by hand, or of its rows."""
    return EXPECTED.get(model) or set(registers(MODELS[model]))


class Sweep:
    """What is done, kept in a file."""

    def __init__(self, numbers: Numbers, done: Path) -> None:
        self._numbers, self._file = numbers, done
        self.rows: dict[str, list[list[int]]] = (
            json.loads(done.read_text()) if done.exists() else {})

    def part(self, piece: tuple[str, int]) -> None:
        """One stretch of one model."""
        model, first = piece
        found = self._numbers(model, first, min(first + CHUNK, END))
        self.rows[f"{model} {first:#x}"] = [[int(value) for value in row] for row in found.tolist()]
        temporary = self._file.with_suffix(f".{os.getpid()}.{first:x}")
        temporary.write_text(json.dumps(dict(self.rows)))
        os.replace(temporary, self._file)

    def of(self, model: str) -> list[list[int]]:
        """All answers of a model, by number."""
        return [row for first in range(0, END, CHUNK) for row in self.rows[f"{model} {first:#x}"]]

    def run(self, models: Iterable[str], jobs: int) -> None:
        """The stretches that are not done yet."""
        pieces = [(model, first) for model in models for first in range(0, END, CHUNK)
                  if f"{model} {first:#x}" not in self.rows]
        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(self.part, pieces):
                pass


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cpu.numbers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], metavar="MODEL")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--done", type=Path, default=Path("numbers.json"))
    options = parser.parse_args()
    models = options.models or list(MODELS)
    start, wrong, digest = time.process_time(), 0, hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(Numbers(Path(folder)), options.done)
        sweep.run(models, options.jobs)
    for model in models:
        rows = sweep.of(model)
        found = {row[0] for row in rows}
        different = sorted(found ^ wanted(model))
        wrong += bool(different)
        own = hashlib.sha256(json.dumps([model, rows]).encode())
        digest.update(own.digest())
        print(f"{model}: {len(found)} of 2**32 answer, {sum(row[2] >= 0 for row in rows)} take 0, "
              f"{len(different)} unlike the table {[hex(index) for index in different[:8]]} "
              f"{own.hexdigest()[:16]}", flush=True)
    print(f"{len(models)} models, {time.process_time() - start:.0f} s of CPU time, "
          f"digest {digest.hexdigest()}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
