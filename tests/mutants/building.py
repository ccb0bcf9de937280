"""A copy of the tree in which the sources of a target are woven, with their extensions built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.weaving import Mutant, weave

__all__ = ["Copy"]

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests/mutants")
_DIRECTIVES = "boundscheck=False,initializedcheck=False,wraparound=False,cdivision=True"
_INCLUDE = ("lbrcore/include", "pylbr/record/plugin", "pylbr/x86", "lbrcore/library", HERE)
_ERROR = re.compile(r"^(\S+\.(?:pyx|pxd)):(\d+):\d+: ", re.M)


def _files() -> list[str]:
    """What git holds or would hold, and the extensions that are built."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
        check=True, capture_output=True, text=True).stdout.split("\0")
    built = [str(path.relative_to(ROOT)) for package in ("lbrcore", "pylbr")
             for path in (ROOT / package).rglob("*.so")]
    return [name for name in [*listed, *built] if name and (ROOT / name).is_file()]


class Copy:
    """The copy at `place`.

    Attributes
    ----------
    mutants : dict of int to Mutant
        By number; those that do not compile are not among them.
    """

    def __init__(self, place: Path, files: list[str], also: dict[str, list[str]]) -> None:
        self.place, self.also = place, also
        self._dropped: set[str] = set()
        self._woven: dict[str, tuple[dict[int, Mutant], dict[int, list[int]]]] = {}
        shutil.rmtree(place, ignore_errors=True)
        for name in _files():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
        (place / ".venv").symlink_to(ROOT / ".venv")
        (place / "site").mkdir()
        shutil.copy(place / HERE / "mutant_switch.py", place / "site")
        subprocess.run(["git", "init", "-q"], cwd=place, check=True)
        subprocess.run(["git", "add", "-A"], cwd=place, check=True)
        self.files = files
        for number, file in enumerate(files):
            self._weave(file, 1 + number * 2000)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._compiled, self._modules()))

    @property
    def mutants(self) -> dict[int, Mutant]:
        return {number: mutant for file in self.files
                for number, mutant in self._woven[file][0].items()
                if mutant.key not in self._dropped}

    def _modules(self) -> list[str]:
        names = [file for file in self.files if file.endswith(".pyx")]
        for file in self.files:
            names += [name for name in self.also.get(file, []) if name not in names]
        return names

    def _weave(self, file: str, first: int) -> None:
        woven = weave(file, (ROOT / file).read_text(), first, self._dropped)
        if file.endswith(".py"):
            compile(woven.text, file, "exec")
        (self.place / file).write_text(woven.text)
        self._woven[file] = woven.mutants, woven.lines

    def _drop(self, file: str, line: int) -> bool:
        """Leave out the mutants of a woven line that the compiler refuses."""
        mutants, lines = self._woven.get(file, ({}, {}))
        numbers = lines.get(line, [])
        self._dropped |= {mutants[number].key for number in numbers if number in mutants}
        return bool(numbers)

    def _compiled(self, module: str) -> None:
        """C of a module, without the mutants that are no Cython, then its extension."""
        source = self.place / module
        command = [sys.executable, "-m", "cython", "-3", "-X", _DIRECTIVES, "--shared",
                   "lbrcore._cyutility", module]
        for _ in range(40):
            done = subprocess.run(command, cwd=self.place, capture_output=True, text=True)
            if done.returncode == 0:
                break
            found = {(file, int(line)) for file, line in _ERROR.findall(done.stderr)}
            dropped = [self._drop(file, line) for file, line in sorted(found)]
            if not any(dropped):
                raise RuntimeError(done.stderr)
            for file in {file for file, _ in found}:
                self._weave(file, 1 + self.files.index(file) * 2000)
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        built = source.with_name(source.stem + suffix)
        built.unlink(missing_ok=True)  # a copy of a file that may be mapped
        subprocess.run(
            [*os.environ.get("CC", "gcc").split(), "-O1", "-w", "-shared", "-fPIC", "-fwrapv",
             f"-I{sysconfig.get_path('include')}", *(f"-I{path}" for path in _INCLUDE),
             str(source.with_suffix(".c").relative_to(self.place)), "-o",
             str(built.relative_to(self.place))], cwd=self.place, check=True)
