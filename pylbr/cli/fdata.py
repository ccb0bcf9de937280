"""Output in BOLT's own form, which BOLT makes: only it has the control flow that the form needs."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from typing import Final

from pylbr.files.output import AtomicFile
from pylbr.optimize.bolt import find_bolt
from pylbr.profile.link import LinkProfile
from pylbr.profile.preagg import write_preagg

__all__ = ["FDATA", "add_bolt", "write_fdata"]

#: Suffix of the form.
FDATA: Final = ".fdata"


def add_bolt(parser: argparse.ArgumentParser) -> None:
    """Option of the BOLT to call."""
    parser.add_argument("--bolt", metavar="FOLDER",
                        help=f"where the perf2bolt is that makes {FDATA} (default: the newest)")


def write_fdata(path: str, profile: LinkProfile, folder: str | None) -> None:
    """Write `profile` as perf2bolt does.

    It gets the lines that every version reads, those with mispredicts, and disassembles the binary.

    Raises
    ------
    CommandError
        There is no BOLT, or it finds nothing of the binary.
    TraceError
        There is nothing to write, or the file cannot be written; nothing is left then.
    """
    bolt = find_bolt(folder)
    with tempfile.TemporaryDirectory(prefix="pylbr-") as place:
        preagg, fdata = os.path.join(place, "x.preagg"), os.path.join(place, "x.fdata")
        write_preagg(preagg, profile, "branches")
        mismatching = bolt.profile(preagg, os.path.abspath(profile.image.path), fdata)
        with AtomicFile(path) as output, open(fdata, "rb") as made:
            while data := made.read(1 << 20):
                output.file.write(data)
    if mismatching:
        print(f"pylbr: {path}: {mismatching:,} straight runs do not fit the code of "
              f"{profile.image.path}, by BOLT {bolt.version}", file=sys.stderr)
