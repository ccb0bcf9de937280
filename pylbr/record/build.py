"""Finds QEMU and builds, once, what runs beside and inside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pylbr.errors import UnsupportedFeature

__all__ = ["Tools", "cache_directory", "find_qemu", "tools"]

_HERE: Final = Path(__file__).parent
PLUGIN: Final = ("plugin.c", "guest.c", "repair.c")
_LAUNCH: Final = ("launch.c",)
_HEADERS: Final = ("wire.h", "decode.h", "recorder.h", "qemu_plugin.h")
_FLAGS: Final = ("-O2", "-std=gnu11", "-fno-strict-aliasing")
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


def find_qemu() -> str:
    """Path of a ``qemu-x86_64`` that takes plugins: ``$PYLBR_QEMU``, or the one in PATH.

    Raises
    ------
    UnsupportedFeature
        None is there, or it was built without plugins.
    """
    wanted = os.environ.get("PYLBR_QEMU", "qemu-x86_64")
    path = shutil.which(wanted)
    if path is None:
        raise UnsupportedFeature(f"no {wanted} found: {_REMEDY}, or point PYLBR_QEMU at one")
    result = subprocess.run(
        [path, "-h"], capture_output=True, text=True, errors="replace", check=False
    )
    if "-plugin" not in result.stdout:
        what = "was built without TCG plugins" if "usage" in result.stdout else "does not run"
        raise UnsupportedFeature(f"{path} {what}: {_REMEDY}, or point PYLBR_QEMU at one")
    return path


def tools() -> Tools:
    """QEMU, and the plugin and the launcher, compiled on first use.

    Raises
    ------
    UnsupportedFeature
        No suitable QEMU, no C compiler, or the compiler fails.
    """
    qemu = find_qemu()
    plugin = _built("plugin.so", PLUGIN, ("-shared", "-fPIC", "-fvisibility=hidden"))
    return Tools(qemu, str(plugin), str(_built("launch", _LAUNCH, ())))


def _built(name: str, sources: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    digest = hashlib.sha256(" ".join(_FLAGS + flags).encode())
    for source in sources + _HEADERS:
        digest.update((_HERE / source).read_bytes())
    target = cache_directory() / digest.hexdigest()[:16] / name
    if not target.exists():
        _compile(target, [str(_HERE / source) for source in sources], flags)
    return target


def _compile(target: Path, sources: list[str], flags: tuple[str, ...]) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise UnsupportedFeature("no C compiler found to build the recorder: install gcc or clang")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            output = Path(scratch) / target.name
            result = subprocess.run(
                [compiler, *_FLAGS, *flags, "-o", str(output), *sources],
                capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
            if result.returncode:
                first = next((x for x in result.stderr.splitlines() if "error" in x), "no message")
                raise UnsupportedFeature(f"{compiler} cannot build the recorder: {first}")
            os.replace(output, target)
    except OSError as error:
        raise UnsupportedFeature(
            f"{error.filename or target}: {error.strerror}; set XDG_CACHE_HOME to a directory "
            "that can be written"
        ) from error
