"""Formats of profiles, which are written and not read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from pylbr.errors import CommandError, TraceError
from pylbr.files.format import Format, WriteOptions
from pylbr.files.output import AtomicFile
from pylbr.perf.stacks import Stacks

if TYPE_CHECKING:
    from pylbr.profile.aggregate import Profile
    from pylbr.profile.link import LinkProfile
    from pylbr.trace.trace import Trace

__all__ = ["AUTOFDO", "ENTRIES_CSV", "FOLDED", "GO_PROFILE", "LINKED", "LLVM_PROFILE", "PPROF",
           "PREAGG", "PROFGEN", "SPEEDSCOPE", "SPEEDSCOPE_TRACE", "write_linked"]

#: Suffixes of the forms that are about one binary.
LINKED: Final = (".preagg", ".afdo.txt", ".profgen.txt", ".prof.txt", ".pb.gz", ".pgo", ".folded")


def _linked(source: Stacks, path: str, options: WriteOptions) -> tuple[LinkProfile, int]:
    """Counts at the link addresses of the binary, and the number of samples."""
    from pylbr.profile.aggregate import collect
    from pylbr.profile.link import link_profile

    binary = options.binary
    if binary is None:
        raise CommandError(f"{path}: is about one binary; name it with --binary ELF"
                           f"{_likely(collect(source))}")
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


def _likely(profile: Profile) -> str:
    """The binary that has most of the branches, as the end of a message."""
    from pylbr.profile.doctor import shares_of_files

    files = [item for item in shares_of_files(profile)[1].most_common()
             if item[0].startswith("/")]
    return f", such as {files[0][0]} ({files[0][1]:.0%} of the branches)" if files else ""


def write_linked(
    path: str | os.PathLike[str], profile: LinkProfile, preagg_form: str | None = None
) -> None:
    """Write counts of one binary in the form that the suffix of `path`, of `LINKED`, chooses.

    Raises
    ------
    TraceError
        There is nothing that this form can show, or the file cannot be written.
    """
    from pylbr.profile.autofdo import write_autofdo
    from pylbr.profile.go_profile import write_go_profile
    from pylbr.profile.llvm_profile import write_llvm_profile
    from pylbr.profile.pprof import write_folded, write_pprof
    from pylbr.profile.preagg import FORMS, write_preagg
    from pylbr.profile.profgen import write_profgen

    name = os.fspath(path).lower()
    if name.endswith(".preagg"):
        write_preagg(path, profile, preagg_form or FORMS[0])
        return
    writers = {".afdo.txt": write_autofdo, ".profgen.txt": write_profgen,
               ".prof.txt": write_llvm_profile, ".pb.gz": write_pprof, ".pgo": write_go_profile,
               ".folded": write_folded}
    next(write for suffix, write in writers.items() if name.endswith(suffix))(path, profile)


def _write(source: Stacks, path: str, options: WriteOptions) -> int:
    profile, count = _linked(source, path, options)
    write_linked(path, profile, options.preagg_form)
    if path.lower().endswith(".preagg") and options.preagg_form is None:
        options.note(
            f"{path}: trace lines, which BOLT reads from version 22 on; for an older one add "
            "--preagg-form branches"
        )
    return count


def _write_entries(source: Stacks, path: str, options: WriteOptions) -> int:
    from pylbr.extras import needed
    from pylbr.profile.tables import arrow_entries

    csv = needed("pyarrow.csv")

    count, header = 0, True
    with AtomicFile(path) as output:
        for samples in source.samples():
            form = csv.WriteOptions(include_header=header, quoting_header="none")
            csv.write_csv(arrow_entries(samples, count), output.file, form)
            count, header = count + len(samples), False
    return count


def _write_call_stacks(source: Stacks, path: str, options: WriteOptions) -> int:
    from pylbr.profile.speedscope import write_stacks

    return write_stacks(source, path, options)


def _write_trace_stacks(trace: Trace, path: str, options: WriteOptions) -> int:
    from pylbr.profile.speedscope import write_trace

    return write_trace(trace, path, options)


PREAGG = Format(
    "preagg", "pre-aggregated text for perf2bolt", "stacks", write=_write,
    suffixes=(".preagg",),
)
AUTOFDO = Format(
    "autofdo", "text profile for create_llvm_prof", "stacks", write=_write,
    suffixes=(".afdo.txt",),
)
PROFGEN = Format(
    "profgen", "text profile for llvm-profgen --unsymbolized-profile", "stacks", write=_write,
    suffixes=(".profgen.txt",),
)
LLVM_PROFILE = Format(
    "llvm-profile", "LLVM's sample profile as text, for clang -fprofile-sample-use", "stacks",
    write=_write, suffixes=(".prof.txt",),
)
PPROF = Format("pprof", "profile for pprof", "stacks", write=_write, suffixes=(".pb.gz",))
GO_PROFILE = Format(
    "go-profile", "calls for go build -pgo", "stacks", write=_write, suffixes=(".pgo",)
)
FOLDED = Format(
    "folded", "collapsed stacks for flame graphs", "stacks", write=_write,
    suffixes=(".folded",),
)
SPEEDSCOPE = Format(
    "speedscope", "call stacks for speedscope", "stacks", write=_write_call_stacks,
    suffixes=(".speedscope.json",),
)
SPEEDSCOPE_TRACE = Format(
    "speedscope-trace", "call stacks of a trace for speedscope", "trace",
    write=_write_trace_stacks, suffixes=(".speedscope.json",),
)
ENTRIES_CSV = Format(
    "entries-csv", "table with one row per branch stack entry", "stacks", write=_write_entries,
    suffixes=(".csv",),
)
