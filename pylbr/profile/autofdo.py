"""Text for AutoFDO: ``create_gcov --profiler=text``, ``create_llvm_prof --profiler=text``.

Three blocks, each its number of lines and then the lines: straight runs ``first-last:count``,
samples ``address:count``, taken branches ``from->to:count``; hexadecimal without 0x.  An address
is its distance from the first segment's, to which AutoFDO 0.19 adds that: given link addresses it
writes an empty profile without a word.  What leaves or enters the binary is left out.
"""

from __future__ import annotations

import os

from pylbr.errors import TraceError
from pylbr.files.output import AtomicFile
from pylbr.profile.link import LinkProfile

__all__ = ["autofdo_text", "write_autofdo"]


def autofdo_text(profile: LinkProfile) -> str:
    """The whole file."""
    at = profile.image.base_offset
    blocks = (
        [f"{at(first):x}-{at(last):x}:{count}"
         for (first, last), (count, _) in profile.runs.items()],
        [f"{at(address):x}:{count}" for address, count in profile.ips.items()],
        [f"{at(first):x}->{at(last):x}:{count}"
         for (first, last), count in profile.within.items()],
    )  # fmt: skip
    return "".join("\n".join([str(len(lines)), *lines]) + "\n" for lines in blocks)


def write_autofdo(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` for AutoFDO.

    Raises
    ------
    TraceError
        There is nothing to write, or the file cannot be written; nothing is left under its
        name then.
    """
    if not profile.runs and not profile.ips and not profile.within:
        raise TraceError(
            path, f"would be empty: nothing ran within {profile.image.path}; the branches only "
            "lead to it or leave it"
        )
    with AtomicFile(path) as output:
        output.file.write(autofdo_text(profile).encode())
