"""Debian's packages: those that are installed, others fetched by apt into a cache of ours.

Nothing is installed, and no root is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pylbr.errors import UnsupportedFeature
from pylbr.linux import apt
from pylbr.record.toolchain import cache_directory

__all__ = ["KERNEL", "dependencies", "fetch", "file_of", "kernel", "root_of"]

#: Debian's kernel for virtual machines.
KERNEL = "linux-image-cloud-amd64"
_TIMEOUT = 600


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False,
                                errors="replace", timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UnsupportedFeature(
            f"no {command[0]}: this takes Debian's packages, or give --kernel and --initrd"
        ) from None
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnsupportedFeature(f"{' '.join(command[:3])}: {last}")
    return result.stdout


def root_of(package: str, file: str) -> Path:
    """Where a package's files lie: / if `file` is installed, else where it was unpacked."""
    return Path("/") if Path("/", file).exists() else fetch(package)


def file_of(package: str, *places: str) -> Path:
    """A package's file, which releases of Debian have in one of several places.

    Raises
    ------
    UnsupportedFeature
        As `fetch`, or it is in none of the places.
    """
    root = root_of(package, places[0])
    for place in places:
        if (root / place).exists():
            return root / place
    raise UnsupportedFeature(f"package {package} has no {' and no '.join(places)}")


def fetch(package: str) -> Path:
    """Directory with the files of a package, fetched by ``apt-get download`` if need be.

    Raises
    ------
    UnsupportedFeature
        apt does not have it, or this is no Debian.
    """
    return _fetched(package, _versions([package]).get(package))


def _versions(packages: Sequence[str]) -> dict[str, str]:
    shown = apt.answer(("show", "--no-all-versions", *packages), _run)
    return dict(re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", shown, re.M | re.S))


def _fetched(package: str, version: str | None) -> Path:
    if version is None:
        raise UnsupportedFeature(f"apt has no package {package}: run apt-get update")
    place = cache_directory() / "debian" / f"{package}_{version.replace(':', '%')}"
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        _run("apt-get", "-q", "-o", "APT::Sandbox::User=", "download", package,
             cwd=Path(scratch))
        archive = next(Path(scratch).glob("*.deb"))
        _run("dpkg-deb", "-x", str(archive), str(Path(scratch, "files")))
        try:
            Path(scratch, "files").rename(place)
        except OSError:
            if not place.is_dir():  # another process was faster
                raise
    return place


def dependencies(package: str) -> Iterator[Path]:
    """Directories of the libraries' packages that a package needs, nearest first, each fetched
    when it is asked for.

    Raises
    ------
    UnsupportedFeature
        As `fetch`.
    """
    level, seen = [package], {package}
    while level:
        listed = apt.answer(("depends", *level), _run)
        found = re.findall(r"^\s*(?:Pre)?Depends: (z?lib\S+)$", listed, re.M)
        level = [name for name in dict.fromkeys(found) if name not in seen]
        seen.update(level)
        versions = _versions(level) if level else {}
        for name in level:
            yield _fetched(name, versions.get(name))


def kernel(package: str = KERNEL) -> Path:
    """The kernel image of a package, or of the package that a meta-package depends on."""
    depends = re.findall(r"^\s*Depends: (linux-image-\S+)$",
                         apt.answer(("depends", package), _run), re.M)
    folder = fetch(depends[0] if depends else package)
    images = sorted(folder.glob("boot/vmlinuz-*"))
    if not images:
        shutil.rmtree(folder, ignore_errors=True)
        raise UnsupportedFeature(f"package {package} has no boot/vmlinuz-*")
    return images[0]
