"""Formats of profiles, which are written and not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylbr.errors import CommandError, TraceError
from pylbr.files.format import Format, WriteOptions
from pylbr.files.output import AtomicFile
from pylbr.perf.stacks import Stacks

if TYPE_CHECKING:
    from pylbr.profile.link import LinkProfile

__all__ = ["AUTOFDO", "ENTRIES_CSV", "PREAGG"]


def _linked(source: Stacks, path: str, options: WriteOptions) -> tuple[LinkProfile, int]:
    """Counts at the link addresses of the binary, and the number of samples."""
    from pylbr.profile.aggregate import collect
    from pylbr.profile.link import link_profile

    binary = options.binary
    if binary is None:
        raise CommandError(f"{path}: is about one binary; name it with --binary ELF")
    profile = collect(source)
    try:
        linked = link_profile(profile, binary)
    except TraceError:
        raise
    except (OSError, ValueError) as error:
        raise CommandError(f"{binary}: cannot be read as a 64-bit ELF file: {error}") from error
    if not linked.edges and not linked.ips:
        raise TraceError(
            source.path, f"{binary} was mapped, but none of the {profile.samples:,} samples "
            f"and {linked.branches:,} branches is in it"
        )
    outside = linked.branches - linked.inside
    if outside:
        options.note(f"{outside / linked.branches:.1%} of the branches are outside of {binary}")
    return linked, profile.samples


def _write_preagg(source: Stacks, path: str, options: WriteOptions) -> int:
    from pylbr.profile.preagg import FORMS, write_preagg

    profile, count = _linked(source, path, options)
    write_preagg(path, profile, options.preagg_form or FORMS[0])
    if options.preagg_form is None:
        options.note(
            f"{path}: trace lines, which BOLT reads from version 22 on; for an older one add "
            "--preagg-form branches"
        )
    return count


def _write_autofdo(source: Stacks, path: str, options: WriteOptions) -> int:
    from pylbr.profile.autofdo import write_autofdo

    profile, count = _linked(source, path, options)
    write_autofdo(path, profile)
    return count


def _write_entries(source: Stacks, path: str, options: WriteOptions) -> int:
    import pyarrow.csv

    from pylbr.profile.tables import arrow_entries

    count, header = 0, True
    with AtomicFile(path) as output:
        for samples in source.samples():
            form = pyarrow.csv.WriteOptions(include_header=header, quoting_header="none")
            pyarrow.csv.write_csv(arrow_entries(samples, count), output.file, form)
            count, header = count + len(samples), False
    return count


PREAGG = Format(
    "preagg", "pre-aggregated text for perf2bolt", "stacks", write=_write_preagg,
    suffixes=(".preagg",),
)
AUTOFDO = Format(
    "autofdo", "text profile for create_llvm_prof", "stacks", write=_write_autofdo,
    suffixes=(".afdo.txt",),
)
ENTRIES_CSV = Format(
    "entries-csv", "table with one row per branch stack entry", "stacks", write=_write_entries,
    suffixes=(".csv",),
)
