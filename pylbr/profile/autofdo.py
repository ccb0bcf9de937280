"""Text for AutoFDO: ``create_gcov --profiler=text``, ``create_llvm_prof --profiler=text``.

Three blocks, each its number of lines and then the lines: straight runs ``first-last:count``,
samples ``address:count``, taken branches ``from->to:count``; hexadecimal without 0x, at the
binary's link addresses.  What leaves or enters the binary is left out.
"""

from __future__ import annotations

import os

from pylbr.profile.link import OUTSIDE, LinkProfile
from pylbr.trace.output import AtomicFile

__all__ = ["autofdo_text", "write_autofdo"]


def autofdo_text(profile: LinkProfile) -> str:
    """The whole file."""
    blocks = (
        [f"{first:x}-{last:x}:{count}" for (first, last), count in profile.runs.items()],
        [f"{address:x}:{count}" for address, count in profile.ips.items()],
        [f"{first:x}->{last:x}:{count}" for (first, last), (count, _) in profile.edges.items()
         if OUTSIDE not in (first, last)],
    )  # fmt: skip
    return "".join(
        "\n".join([str(len(lines)), *lines]) + "\n" for lines in blocks
    )


def write_autofdo(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` for AutoFDO.

    Raises
    ------
    TraceError
        The file cannot be written; nothing is left under its name then.
    """
    with AtomicFile(path) as output:
        output.file.write(autofdo_text(profile).encode())
