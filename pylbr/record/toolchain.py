"""Finds QEMU and builds, once, what runs beside and inside it."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pylbr.errors import UnsupportedFeature
from pylbr.record.parts import LAUNCH, PLUGIN, Part, compiler, ready
from pylbr.record.targets import X86_64, Target

__all__ = [
    "Tools", "built", "cache_directory", "compile_plugin", "find_qemu", "launcher", "tools",
]

_DIGEST_BYTES: Final = 32
#: What a user can install; Debian 13's qemu-user has no plugins, its own build has.
_REMEDY: Final = "install a QEMU user mode with TCG plugins (Debian 12: qemu-user)"


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of what a recording needs."""

    qemu: str
    plugin: str
    launch: str


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/pylbr``, or ``~/.cache/pylbr``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pylbr"


def find_qemu(target: Target = X86_64) -> str:
    """Path of a ``qemu-x86_64`` that takes plugins: ``$PYLBR_QEMU``, or the one in PATH; for
    another architecture its own, by the variable that `Target` names.

    Raises
    ------
    UnsupportedFeature
        None is there, or it was built without plugins.
    """
    variable = target.variable
    wanted = os.environ.get(variable, f"qemu-{target.name}")
    path = shutil.which(wanted)
    if path is None:
        raise UnsupportedFeature(f"no {wanted} found: {_REMEDY}, or point {variable} at one")
    result = subprocess.run(
        [path, "-h"], capture_output=True, text=True, errors="replace", check=False
    )
    if "-plugin" not in result.stdout:
        what = "was built without TCG plugins" if "usage" in result.stdout else "does not run"
        raise UnsupportedFeature(f"{path} {what}: {_REMEDY}, or point {variable} at one")
    return path


def tools(target: Target = X86_64) -> Tools:
    """QEMU, and the plugin and the launcher, as `built` has them.

    Raises
    ------
    UnsupportedFeature
        No suitable QEMU, no C compiler, or the compiler fails.
    """
    qemu = find_qemu(target)
    return Tools(qemu, str(built(PLUGIN)), launcher())


def launcher() -> str:
    """Path of the launcher, as `built` has it."""
    return str(built(LAUNCH))


def compile_plugin(target: Path, *flags: str) -> None:
    """Build the plugin, with further flags for the compiler."""
    _compile(target, PLUGIN, *flags)


def built(part: Part) -> Path:
    """The file that the compiler makes: the wheel's, or else one that is compiled on first use.

    Raises
    ------
    UnsupportedFeature
        No C compiler, or it fails.
    """
    made = ready(part)
    if made is not None:
        return made
    target = _directory() / part.digest() / part.name
    if not _intact(target):
        _compile(target, part)
    return target


def _ours(path: Path) -> bool:
    """Whether no other user can have written it, or can put something else there."""
    status = path.lstat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _directory() -> Path:
    """The cache; where others may write to it, a directory for this process alone."""
    kept = cache_directory()
    try:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        if all(_ours(path) for path in (kept, *kept.iterdir())):
            return kept
    except OSError as error:
        raise _unusable(error, kept) from error
    return _own_directory()


@cache
def _own_directory() -> Path:
    directory = tempfile.mkdtemp(prefix="pylbr-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def _intact(target: Path) -> bool:
    """Whether the file is what `_compile` made, whose last bytes are a digest of the others."""
    try:
        data = target.read_bytes()
        return _ours(target) and _digest(data[:-_DIGEST_BYTES]) == data[-_DIGEST_BYTES:]
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(error, target) from error


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _unusable(error: OSError, path: Path) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"{error.filename or path}: {error.strerror}; set XDG_CACHE_HOME to a directory "
        "that can be written"
    )


def _compile(target: Path, part: Part, *flags: str) -> None:
    program = compiler()
    if program is None:
        raise UnsupportedFeature("no C compiler found to build the recorder: install gcc or clang, "
                                 "or pylbr from a wheel, which brings it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            output = Path(scratch) / target.name
            result = subprocess.run(
                part.command(program, output, *flags),
                capture_output=True, text=True, errors="replace", check=False)
            if result.returncode:
                first = next((x for x in result.stderr.splitlines() if "error" in x), "no message")
                raise UnsupportedFeature(f"{' '.join(program)} cannot build the recorder: {first}")
            data = output.read_bytes()
            with output.open("ab") as file:  # after the end of an ELF file: no loader reads it
                file.write(_digest(data))
            output.chmod(0o700)
            os.replace(output, target)
    except OSError as error:
        raise _unusable(error, target) from error
