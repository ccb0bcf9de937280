"""What a program or a notebook needs first: files opened and counted, programs recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pylbr.errors import CommandError
from pylbr.perf.stacks import Stacks
from pylbr.profile.added import Sum
from pylbr.profile.file_profile import FileProfile, count_file
from pylbr.profile.history import Paths
from pylbr.record.recorded import Recording, record_program
from pylbr.trace import Trace, open_any

__all__ = ["Recording", "open", "profile_of", "record_program"]

Path = str | os.PathLike[str]


def open(path: Path, format: str | None = None) -> Trace | Stacks:
    """Open a trace or a file of branch stacks of any format that pylbr reads.

    Parameters
    ----------
    path : path-like
        ``-`` is standard input.
    format : str, optional
        Name of the format, where the content would mislead.

    Returns
    -------
    Trace or Stacks
        A context manager.  A trace has every branch (`Trace.chunks`, `Trace.read`), stacks are
        a stream of samples with the branches before each (`Stacks.samples`).

    Raises
    ------
    TraceError
        It cannot be read, or no format recognises it.
    """
    return open_any(path, format)


def profile_of(
    source: Path | Trace | Stacks | Recording | Sequence[Path | Recording], history: int = 0
) -> FileProfile:
    """Count the branches of a file, or of several added up, as ``pylbr report`` does.

    Parameters
    ----------
    source : path-like, Recording, Trace or Stacks, or a sequence of paths and recordings
        An open source is read to its end and left open.  Of several, branches are added up by
        file and address in it, whatever address it was mapped at.
    history : int
        Branches in a path of the branch history; 0: it is not counted.

    Raises
    ------
    TraceError
        It cannot be read, or has no sample with a branch.
    CommandError
        A trace has no branch, or no samples whose history could be counted; no source is given.
    """
    if isinstance(source, (Trace, Stacks)):
        return count_file(source, history)
    if isinstance(source, Recording):
        source = source.path
    if isinstance(source, (str, os.PathLike)):
        with open(source) as opened:
            return count_file(opened, history, name=os.fspath(source))
    if not source:
        raise CommandError("no source is given: name at least one file")
    total = Sum(Paths(history) if history else None)
    for one in source:
        profile = profile_of(one, history)
        total.add(profile, 1, profile.paths)
    return total.profile(f"{len(source)} inputs")
