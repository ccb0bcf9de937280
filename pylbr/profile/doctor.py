"""Why a profile would be empty or poor, before a consumer makes it so without a word.

The findings follow from what the consumers do with a recording (tests/peers try it): AutoFDO and
llvm-profgen write empty profiles and exit with 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pylbr.errors import TraceError
from pylbr.files.elf import DAMAGE, ElfImage, sections_and_dwarf
from pylbr.perf.abi import AttrFlag, BranchSample, SampleType
from pylbr.perf.stacks import Comm, Lost, Mmap, Record, Samples, Stacks, StacksMetadata
from pylbr.profile.aggregate import Profile, collect
from pylbr.profile.link import LinkProfile, link_profile

__all__ = ["CONSUMERS", "Diagnosis", "Finding", "examine", "shares_of_files"]

#: What takes such recordings.
CONSUMERS: Final = ("perf report", "perf2bolt", "llvm-profgen", "AutoFDO")
_ALL: Final = CONSUMERS
_KERNEL_HALF: Final = 1 << 63
#: create_llvm_prof stops below this share of mapped samples.
_AUTOFDO_MAPPED: Final = 0.95
_FEW: Final = 1000
_LARGEST_ATTR: Final = 128


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or could be better.

    Attributes
    ----------
    level : {"empty", "poor", "note"}
        What comes of it: no profile, a bad one, or nothing to fear.
    what : str
        One sentence with its figures.
    advice : str
        The command or option that helps; empty if there is none.
    concerns : tuple of str
        Of `CONSUMERS`.
    """

    level: str
    what: str
    advice: str = ""
    concerns: tuple[str, ...] = _ALL


@dataclass(slots=True)
class Diagnosis:
    """All findings of a recording.

    Attributes
    ----------
    figures : dict of str to object
        Samples, entries, shares: what the findings are based on.
    findings : list of Finding
        The worst first.
    """

    figures: dict[str, object] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def verdict(self, consumer: str) -> str:
        """``empty``, ``poor`` or ``good``: what a consumer makes of the recording."""
        levels = {f.level for f in self.findings if consumer in f.concerns}
        return "empty" if "empty" in levels else "poor" if "poor" in levels else "good"


class _Watch:
    """What passes by while a stream is counted."""

    def __init__(self, source: Stacks) -> None:
        self.source = source
        self.comms = self.maps = self.lost = self.samples = self.deepest = self.lone = 0
        self.empty = self.pids = 0
        self.events: Counter[int] = Counter()
        self.kernel = self.from_count = 0

    def records(self) -> Iterator[Record]:
        """The stream itself."""
        for record in self.source:
            if isinstance(record, Comm):
                self.comms += 1
            elif isinstance(record, Mmap):
                self.maps += 1
            elif isinstance(record, Lost):
                self.lost += record.count
            elif isinstance(record, Samples):
                self._samples(record)
            yield record

    def _samples(self, batch: Samples) -> None:
        depth = np.diff(batch.offsets)
        self.samples += len(batch)
        if len(batch):
            self.deepest = max(self.deepest, int(depth.max()))
        self.lone += int((depth == 1).sum())
        self.empty += int((depth == 0).sum())
        self.pids += int(np.count_nonzero(batch.pid))
        self.events.update(batch.event.tolist())
        self.from_count += len(batch.entries)
        self.kernel += int((batch.entries["from"] >= np.uint64(_KERNEL_HALF)).sum())


def examine(source: Stacks, binary: str | None = None) -> Diagnosis:
    """Read a recording to its end and report what is wrong with it.

    Parameters
    ----------
    source : Stacks
    binary : str, optional
        The ELF file that a profile is wanted of.

    Raises
    ------
    TraceError
        The recording cannot be read, or `binary` is no ELF file.
    """
    watch = _Watch(source)
    stream = Stacks(source.metadata, watch.records(), source.path)
    stream.reopen, stream.build_ids = source.reopen, source.build_ids
    profile = collect(stream)
    found = Diagnosis()
    mapped, places = shares_of_files(profile)
    found.figures = {
        "samples": watch.samples, "branches": profile.entries, "lost": watch.lost,
        "deepest_stack": watch.deepest, "mapped": mapped,
        "kernel": watch.kernel / watch.from_count if watch.from_count else None,
        "mispredicts": profile.mispredicts_measured, "cycles": profile.cycles_measured,
        "files": dict(places.most_common(5)),
    }
    found.findings += _of_content(watch, profile, mapped)
    if watch.samples:
        for number in sorted(watch.events):
            if number < len(source.metadata.events):
                found.findings += _of_event(source.metadata, number)
    found.findings += _of_file(source)
    if binary is not None:
        found.findings += _of_binary(binary, profile, found.figures)
    order = {"empty": 0, "poor": 1, "note": 2}
    found.findings.sort(key=lambda finding: order[finding.level])
    return found


def shares_of_files(profile: Profile) -> tuple[float | None, Counter[str]]:
    """Share of the branches that leave from mapped files, None without any; that of each file."""
    counts: Counter[str] = Counter()
    for space, address, count in profile.edges[["pid", "first", "count"]].tolist():
        mapping = profile.spaces.find(space, address)
        counts[mapping.path if mapping else ""] += count
    total = counts.total()
    places = Counter({path: count / total for path, count in counts.items() if path})
    return (1 - counts[""] / total if total else None), places


def _of_content(watch: _Watch, profile: Profile, mapped: float | None) -> Iterable[Finding]:
    if not watch.samples:
        yield Finding("empty", "there are no samples", "was the program long enough, and the event "
                      "counted at all? perf stat -e EVENT -- PROGRAM")
        return
    if not watch.from_count:
        yield Finding("empty", f"the {watch.samples:,} samples have no branch stacks",
                      "record with -b (perf record -b, or -j any,u); on a machine without LBRs: "
                      "pylbr record -- PROGRAM")
        return
    if watch.empty * 10 > watch.samples:
        yield Finding("poor", f"{watch.empty / watch.samples:.0%} of the samples have an empty "
                      "stack", "do not let other users of the LBRs (KVM guests, another perf) run")
    if watch.deepest == 1:
        yield Finding("empty", "no stack has more than one entry, so that there are no straight "
                      "runs", "record all of the stack: perf record -b, without -j filters that "
                      "pass calls alone", ("AutoFDO",))
    if watch.samples < _FEW:
        yield Finding("poor", f"{watch.samples:,} samples are few", "record longer, or with a "
                      "smaller period (-c)")
    if watch.lost * 20 > watch.samples:
        yield Finding("poor", f"{watch.lost:,} samples were lost, and {watch.samples:,} were not",
                      "perf record -m 512 (a larger buffer), or a larger period (-c)")
    if not watch.maps:
        yield Finding("empty", "there are no mappings, which map addresses to files",
                      "perf record writes them unless it was asked not to; perf script prints them "
                      "with --show-mmap-events")
    elif mapped is not None and mapped < 1:
        yield from _unmapped(mapped)
    if not watch.comms:
        yield Finding("empty", "there are no COMM records: AutoFDO writes an empty profile",
                      "pylbr convert IN -o OUT.perf.data, or perf inject", ("AutoFDO",))
    if not watch.pids:
        yield Finding("empty", "the samples have no process", "perf script -F +pid, or record "
                      "with perf's usual sample type", ("perf2bolt", "llvm-profgen", "AutoFDO"))
    if watch.kernel * 2 > watch.from_count:
        yield Finding("poor", f"{watch.kernel / watch.from_count:.0%} of the branches are the "
                      "kernel's", "perf record -b -e EVENT:u for a program's profile")
    runs = int(profile.runs["count"].sum()) + profile.broken
    if runs and profile.broken * 100 > runs:
        yield Finding("poor", f"{profile.broken / runs:.1%} of the adjacent entries are not "
                      "connected by straight-line code: entries are missing, doubled or in the "
                      "wrong order", "record without a branch filter (-b); a Skylake doubles its "
                      "newest entry")
    if not profile.mispredicts_measured:
        yield Finding("note", "no entry has its prediction: mispredicts are not measured, "
                      "not 0", "perf record without -j no_flags; pylbr record --full "
                      "--mispredicts tage")
    if not profile.cycles_measured:
        yield Finding("note", "no entry has cycles", "perf record without -j no_cycles; pylbr "
                      "record --cycles", ("perf report",))


def _unmapped(mapped: float) -> Iterable[Finding]:
    text = f"{1 - mapped:.1%} of the branches leave from where no file is mapped"
    if mapped == 0:
        yield Finding("empty", text, "record the program from its start, or with perf record -p "
                      "after it has mapped its code")
    elif mapped < _AUTOFDO_MAPPED:
        yield Finding("empty", f"{text}: AutoFDO wants 95 % and else writes an empty profile, with "
                      "exit code 0", "is there generated code (JIT)? perf inject -j; else record "
                      "with MMAP2 for every executable mapping", ("AutoFDO",))
        yield Finding("poor", text, "perf inject -j for generated code",
                      ("perf report", "perf2bolt", "llvm-profgen"))
    else:
        yield Finding("note", text)


def _of_event(metadata: StacksMetadata, number: int) -> Iterable[Finding]:
    event = metadata.events[number]
    kinds = BranchSample(event.branch_sample_type & ((1 << 20) - 1))
    name = event.name or f"type {event.type}, config {event.config:#x}"
    if kinds and not kinds & BranchSample.ANY:
        words = ", ".join(kind.name.lower() for kind in BranchSample
                          if kind.name and kind in kinds and kind not in (
                              BranchSample.USER | BranchSample.KERNEL | BranchSample.HV))
        yield Finding("poor", f"{name}: only some kinds of branches were recorded ({words}): what "
                      "lies between two entries is no straight run", "perf record -b, or -j any,u",
                      ("perf2bolt", "llvm-profgen", "AutoFDO"))
    if kinds & BranchSample.HW_INDEX:
        yield Finding("empty", f"{name}: the stacks have the hardware's index, which AutoFDO 0.19 "
                      "cannot read", "pylbr convert IN -o OUT.perf.data leaves it out of a new "
                      "file; perf record before 5.7 does not ask for it", ("AutoFDO",))
    period, frequency = event.period, bool(event.flags & AttrFlag.FREQ)
    if period > 1 and not frequency and (period % 1000 == 0 or period & (period - 1) == 0):
        yield Finding("poor", f"{name}: a period of {period:,} may keep step with loops",
                      f"a prime near it: -c {_prime(period)}")
    if event.attr and len(event.attr) > _LARGEST_ATTR:
        yield Finding("empty", f"{name}: its description has {len(event.attr)} bytes, more than "
                      "perf 6.1 reads; perf2bolt and llvm-profgen call perf",
                      "pylbr convert IN -o OUT.perf.data, or a newer perf first in PATH",
                      ("perf report", "perf2bolt", "llvm-profgen"))
    if event.sample_type and not event.sample_type & SampleType.IP:
        yield Finding("empty", f"{name}: the samples have no instruction pointer",
                      "record with perf's usual sample type")


def _prime(number: int) -> int:
    """The first prime from `number` on."""
    number |= 1
    while any(number % factor == 0 for factor in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number


def _of_file(source: Stacks) -> Iterable[Finding]:
    try:
        with open(source.path, "rb") as file:
            head = file.read(16)
    except OSError:
        return
    if head.startswith(b"PERFILE2") and head[8:16] == (16).to_bytes(8, "little"):
        yield Finding("empty", "it is in perf's form for pipes, which perf2bolt and llvm-profgen "
                      "do not read", f"pylbr convert {source.path} -o OUT.perf.data",
                      ("perf2bolt", "llvm-profgen"))
    elif head.startswith(b"PERFILE2") and "BRANCH_STACK" not in source.metadata.other_features:
        yield Finding("empty", "its header does not list BRANCH_STACK: perf report "
                      "--branch-history refuses it", f"pylbr convert {source.path} -o "
                      "OUT.perf.data", ("perf report",))


def _of_binary(
    path: str, profile: Profile, figures: dict[str, object]
) -> Iterable[Finding]:
    try:
        image = ElfImage(path)
        sections, version = sections_and_dwarf(path)
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, *DAMAGE) as error:
        raise TraceError(path, f"is no ELF file of 64 bits: {error}") from error
    figures |= {"binary": path, "build_id": image.build_id.hex(), "dwarf": version}
    try:
        linked = link_profile(profile, path)
    except TraceError as error:
        yield Finding("empty", str(error), "give the file that ran (perf buildid-list -i FILE "
                      "shows which), or record this one")
    else:
        yield from _of_link(linked, figures)
    if not image.build_id:
        yield Finding("note", f"{path} has no build-id: it is known by its name alone",
                      "link with -Wl,--build-id")
    if version is None:
        yield Finding("empty", f"{path} has no line table (DWARF)", "compile with -g; for AutoFDO "
                      "0.19 with -gdwarf-4", ("llvm-profgen", "AutoFDO"))
    elif version > 4:
        yield Finding("empty", f"{path} has DWARF {version}, which AutoFDO 0.19 does not read: an "
                      "empty profile with exit code 0", "compile with -gdwarf-4", ("AutoFDO",))
    code = next((s for s in image.segments if s.executable), None)
    if code is not None and image.base_offset(code.address) != code.offset:
        yield Finding("empty", f"the code of {path} lies elsewhere in its file than in memory, as "
                      "lld and mold link: AutoFDO 0.19 takes the one for the other", f"pylbr "
                      f"convert FILE -o x.afdo.txt --binary {path}, and create_llvm_prof "
                      "--profiler=text --profile=x.afdo.txt", ("AutoFDO",))
    if ".symtab" not in sections:
        yield Finding("poor", f"{path} is stripped: no names of local functions",
                      "keep the file before strip, or install its debug file",
                      ("perf report", "perf2bolt"))
    if ".note.bolt_info" in sections:
        yield Finding("empty", f"{path} was written by BOLT, which takes no file twice",
                      "record and give the file before BOLT (or add -enable-bat when it was made)",
                      ("perf2bolt",))
    elif ".rela.text" not in sections:
        yield Finding("note", f"{path} has no relocations: BOLT does not reorder functions",
                      "link with -Wl,--emit-relocs (or -Wl,-q)", ("perf2bolt",))


def _of_link(linked: LinkProfile, figures: dict[str, object]) -> Iterable[Finding]:
    share = linked.inside / linked.branches if linked.branches else 0.0
    figures["in_binary"] = share
    if not linked.inside:
        yield Finding("empty", f"no branch is in {linked.image.path}", "is it the program that was "
                      "busy? pylbr report FILE --by functions")
    elif share < 0.1:
        yield Finding("poor", f"{share:.1%} of the branches are in {linked.image.path}",
                      "is it the program that was busy? pylbr report FILE --by functions")
