"""Text for llvm-profgen: ``llvm-profgen --unsymbolized-profile=FILE --binary=ELF --output=OUT``.

It makes LLVM's sample profile of this, as of perf.data, without perf.  Two blocks, each its
number of lines and then the lines: straight runs ``first-last:count``, taken branches
``from->to:count``; hexadecimal without 0x, as distance from the page at which the binary's first
code is linked.  What comes from outside has the address 1 in place of `from`; what leaves is left
out, and so is what leads to the procedure linkage table or runs in it.

Source: ``llvm/tools/llvm-profgen/PerfReader.cpp`` of LLVM 19 (``writeUnsymbolizedProfile``).
"""

from __future__ import annotations

import os

from pylbr.errors import TraceError
from pylbr.files.output import AtomicFile
from pylbr.profile.link import OUTSIDE, LinkProfile

__all__ = ["profgen_text", "write_profgen"]

_EXTERNAL = 1
_PAGE = 4096


def profgen_text(profile: LinkProfile) -> str:
    """The whole file."""
    base = next(s.address for s in profile.image.segments if s.executable) // _PAGE * _PAGE

    in_plt = profile.image.in_plt

    def at(address: int) -> str:
        return f"{((_EXTERNAL if address == OUTSIDE else address) - base) % (1 << 64):x}"

    runs = [f"{at(first)}-{at(last)}:{count}"
            for (first, last), (count, _) in profile.runs.items() if not in_plt(first)]
    branches = [f"{at(first)}->{at(last)}:{count}"
                for (first, last), (count, _) in profile.edges.items()
                if last != OUTSIDE and not in_plt(last)]
    return "".join("\n".join([str(len(lines)), *lines]) + "\n" for lines in (runs, branches))


def write_profgen(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` for llvm-profgen.

    Raises
    ------
    TraceError
        There is nothing to write, or the file cannot be written; nothing is left under its
        name then.
    """
    if not profile.runs and not profile.edges:
        raise TraceError(path, f"would be empty: nothing ran within {profile.image.path}")
    with AtomicFile(path) as output:
        output.file.write(profgen_text(profile).encode())
