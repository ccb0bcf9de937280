"""The shared libraries that a program needs, found as the dynamic linker finds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pylbr.errors import UnsupportedFeature
from pylbr.files.elf import read_needed

__all__ = ["libraries"]

_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib",
            "usr/lib")


def libraries(
    programs: Iterable[Path], roots: Sequence[Path] = (Path("/"),), more: Iterable[Path] = (),
) -> dict[str, Path]:
    """Path in the guest to file of the host, of all that the programs need.

    Parameters
    ----------
    programs : iterable of Path
        ELF files of x86-64; others need nothing.
    roots : sequence of Path
        Where file systems of Debian lie; those first are preferred.
    more : iterable of Path
        Further ones, taken one by one as long as a library is in none so far.

    Raises
    ------
    UnsupportedFeature
        A library is nowhere.
    """
    found: dict[str, Path] = {}
    places, further = list(roots), iter(more)
    waiting, seen = list(programs), set[str]()
    while waiting:
        program = waiting.pop()
        for name in _needs(program):
            if name in seen:
                continue
            seen.add(name)
            while (at := _find(name, places)) is None:
                place = next(further, None)
                if place is None:
                    raise UnsupportedFeature(
                        f"{program}: needs {name}, which is in none of the usual folders")
                places.append(place)
            found[at[0]] = at[1]
            waiting.append(at[1])
    return found


def _find(name: str, roots: Sequence[Path]) -> tuple[str, Path] | None:
    if name.startswith("/"):
        candidates = [name]
    else:
        candidates = [f"/{folder}/{name}" for folder in _FOLDERS]
    for root in roots:
        for place in candidates:
            file = root / place[1:]
            if file.is_file():
                return place, file
    return None


def _needs(program: Path) -> tuple[str, ...]:
    with program.open("rb") as stream:
        try:
            return read_needed(stream)
        except ValueError as error:
            raise UnsupportedFeature(f"{program}: a damaged ELF file ({error})") from None
