"""A program recorded into a file: the one way of the command line and of Python programs."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pylbr.errors import CommandError
from pylbr.perf.abi import BranchSample
from pylbr.perf.branch_filter import BRANCH_KINDS, lbr_ctl
from pylbr.record.choice import choose, process_of
from pylbr.record.engine import Request
from pylbr.record.events import counted_event, privileges_of
from pylbr.record.filters import recordable_filter
from pylbr.record.native.bursts import described
from pylbr.record.output import PerfDataOutput
from pylbr.record.program import target_of
from pylbr.record.targets import X86_64
from pylbr.record.wire_numbers import Counted

if TYPE_CHECKING:
    from pylbr.record.live import LiveOutput
    from pylbr.record.predicted import PredictedOutput
    from pylbr.record.trace_output import TraceOutput

__all__ = ["Recording", "period_of", "record_program"]

#: Hertz, by engine.
_MAX_FREQUENCY: Final = {"native": 50_000, "qemu": 100_000}
_DEFAULT_FREQUENCY: Final = 1000
_DEFAULT_EVENT: Final = "branches:u"
#: Samples that advice is to give, and a period that gives some of a program that hardly runs.
_SOME: Final = 20
_FEW: Final = 1009
#: Suffixes of forms that a recording is not written in: tests hold them to `pylbr.trace.formats`.
OTHER_FORMS: Final = (
    ".lbrt", ".parquet", ".arrow", ".champsimtrace", ".champsimtrace.gz", ".champsimtrace.xz",
    ".csv", ".preagg", ".afdo.txt", ".profgen.txt", ".prof.txt", ".pb.gz", ".pgo",
    ".folded", ".speedscope.json", ".fdata", ".perfscript")


@dataclass(frozen=True, slots=True)
class Recording:
    """What a recording gave.

    Attributes
    ----------
    path : str
        The file.
    count : int
        Samples in it, or branches of a full trace.
    exit_code : int
        The program's, 128 + N for signal N.
    engine : str
        Name of what ran the program.
    full : bool
        The file is a trace of every branch.
    nothing : str
        Why the file is without any sample or branch; empty if it has some.
    remarks : tuple of str
        What was not followed, what was lost, why the file ends early.
    """

    path: str
    count: int
    exit_code: int
    engine: str
    full: bool = False
    nothing: str = ""
    remarks: tuple[str, ...] = field(default=())


def _ignore(line: str) -> None:
    pass


def _uncounted(done: int, total: int) -> None:
    pass


def record_program(
    command: Sequence[str | os.PathLike[str]] = (), output: str | os.PathLike[str] | None = None,
    *, frequency: int | str | None = None, count: int | None = None, event: str | None = None,
    full: bool = False, branch_filter: str | None = None, depth: int | None = None,
    engine: str | None = None, cycles: bool = False, mispredicts: str = "", max_size: int = 0,
    max_overhead: float = 5.0, burst: int = 0, pid: int | None = None, tid: int | None = None,
    seconds: float = 0.0, live: bool = False, system: bool = False, vmlinux: str = "",
    arguments: Sequence[str] = (),
    chosen: Callable[[str], object] = _ignore, announce: Callable[[str], object] = _ignore,
    progress: Callable[[int, int], object] = _uncounted,
) -> Recording:
    """Run a program to its end and record its branches, as ``pylbr record`` does.

    Standard streams are the caller's.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; empty with `pid` or `tid`.
    output : path-like, optional
        Default ``perf.data``, or ``trace.parquet`` of a full trace; it appears when the recording
        has ended.
    frequency : int or "max", optional
        Samples per second of each running thread (``-F``).
    count : int, optional
        Events between two samples (``-c``).
    event : str, optional
        What `count` counts (``-e``).
    full : bool
        Every branch, not samples.
    branch_filter : str, optional
        Kinds of branches (``-j``): ``any,u``, of a system ``any``.
    depth : int, optional
        Branches in a stack.
    engine : str, optional
        What runs the program: native, qemu, unicorn, or an installed package's.
    cycles : bool
        Fill in cycles from a model.
    mispredicts : str
        Fill in mispredicts from a model: gshare or tage.
    max_size : int
        Bytes of the largest full trace to write; 0 for any.
    max_overhead : float
        Percent of a thread's time that the native engine may cost.
    burst : int
        Stacks that the native engine takes per tick, some branches apart; 0: as many as a rate
        above 2,000 per second needs.
    pid, tid : int, optional
        A process that runs already, or one thread of it.
    seconds : float
        How long to record that; 0: until it ends.
    live : bool
        Show the hottest branches on standard error meanwhile.
    system : bool
        The command is one of ``qemu-system-x86_64``, or its arguments: the system that it boots is
        recorded, its kernel and programs.
    vmlinux : str
        The kernel of that; by default the one of ``-kernel``.
    arguments : sequence of str
        The command line that the file names; by default, one of ``pylbr record``.
    chosen : callable, optional
        Called with the engine and why it was taken, if there was a choice.
    announce : callable, optional
        Called with what to expect of a full trace, as it grows.
    progress : callable, optional
        Called with the branches of a full trace that are written, and about how many there are.

    Raises
    ------
    CommandError
        The program cannot be run, or what was asked for does not go together.
    UnsupportedFeature
        The engine cannot work on this machine; the message names what to install.
    """
    words = [os.fspath(word) for word in command]
    if bool(words) == bool(pid or tid):
        raise CommandError("give either a program or the pid of a running process")
    if frequency is not None and count is not None:
        raise CommandError("give a frequency or a count, not both")
    if system and (refused := next((word for given, word in (
            (full, "--full"), (mispredicts, "--mispredicts"), (engine, "--engine")) if given),
            "")):
        raise CommandError(f"{refused}: not of a system; of one there are stacks: -c N or -F HZ")
    if vmlinux and not system:
        raise CommandError("--vmlinux: the kernel of a system; add --system")
    branch_filter = branch_filter or ("any" if system else "any,u")
    filter_ = recordable_filter(branch_filter, system)
    if mispredicts and not full and filter_ & BRANCH_KINDS != BranchSample.ANY:
        raise CommandError(f"-j {branch_filter}: --mispredicts needs branches of every kind: "
                           "-j any,u")
    if depth and full:
        raise CommandError("--depth: a full trace has no stacks; take it of pylbr replay --depth")
    if max_size and not full:
        raise CommandError("--max-size limits --full; of samples, take fewer with a larger -c")
    if live and full:
        raise CommandError("--live shows samples; leave --full out")
    target = target_of(words) if words and not system else X86_64
    if depth and depth not in target.depths:
        raise CommandError(f"--depth {depth}: {target.title} has "
                           f"{', '.join(map(str, target.depths))}")
    needs = next((option for given, option in (
        (full, "--full"), (count is not None, "-c"), (cycles, "--cycles"),
        (event is not None, "-e"),
    ) if given), "")  # options that only an engine with exact counts can do
    runner, why = choose("system" if system else engine, needs, bool(pid or tid), target)
    counted, period = period_of(frequency, count, event, runner.name, system)
    request = Request(
        words, full, counted, period, control=lbr_ctl(filter_), cycles=cycles,
        mispredicts=mispredicts, most_bytes=max_size, seconds=seconds,
        pid=process_of(tid) if tid else pid or 0, tid=tid or 0, overhead=max_overhead,
        burst=burst, system=system, vmlinux=vmlinux,
        privileges=privileges_of(event, filter_) if system else 1,
        depth=depth or 32, target=target,
    )
    path = os.fspath(output) if output else "trace.parquet" if full else "perf.data"
    if path == "-":
        raise CommandError("-o -: standard output is the program's; name a file")
    if not full and path.lower().endswith(OTHER_FORMS):
        raise CommandError(f"-o {path}: samples are recorded as perf.data, in a file of any other "
                           "name; pylbr convert makes this form of it, --full records a trace")
    if burst and runner.name != "native":
        raise CommandError("--burst: stacks per tick of the native engine; other engines have none")
    if why:
        chosen(f"{why}; {described(request)}" if runner.name == "native" else why)
    sink: TraceOutput | PerfDataOutput | LiveOutput | PredictedOutput
    # What few recordings need is loaded where it is: most end within a second.
    if full:
        from pylbr.record.trace_output import TraceOutput

        sink = TraceOutput(path, request, runner, announce, progress)
    else:
        sink = samples = PerfDataOutput(
            path, request, runner, filter_, arguments or ["pylbr", "record", "--", *words])
        if live:
            from pylbr.record.live import LiveOutput

            sink = LiveOutput(samples, int(filter_))
        if mispredicts:
            from pylbr.record.predicted import PredictedOutput

            sink = PredictedOutput(sink, mispredicts)
    before = _children_seconds()
    with sink:
        outcome = runner.run(request, sink, getattr(sink, "refresh", lambda: None))
    nothing = outcome.nothing
    if not sink.count:
        if full:
            nothing = nothing or "nothing of it could be followed"
        else:
            nothing = _too_rare(nothing, counted, period, _children_seconds() - before if words
                                else 0.0, _MAX_FREQUENCY.get(runner.name, 0))
    remarks = [*outcome.remarks, *sink.remarks]
    if outcome.gaps:
        remarks.append(f"{outcome.gaps} steps without an explanation")
    return Recording(path, sink.count, outcome.exit_code, runner.name, full, nothing,
                     tuple(remarks))


def _children_seconds() -> float:
    """CPU time of all processes that were waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _too_rare(why: str, counted: Counted, period: int, seconds: float, most: int) -> str:
    """Why there is no sample, and the option that would have given some."""
    if counted is not Counted.TIME:
        why = why or f"fewer than the {period:,} events of a period occurred"
        fewer = min(_FEW, max(period // 100, 1))
        return f"{why}; -c {fewer} gives some of all but the shortest runs"
    why = why or f"the program ended within the {period / 1e6:,g} ms to the first"
    if not seconds:
        return f"{why}; -F HZ with a larger HZ takes some sooner"
    spent = f"it took {seconds * 1e3:.3g} ms in all"
    hertz = math.ceil(_SOME / seconds)
    if hertz <= most and 1_000_000_000 // hertz < period:
        return f"{why}; {spent}: -F {hertz} gives about {_SOME}"
    return f"{why}; {spent}: -c {_FEW} gives some, counted under QEMU"


def period_of(
    frequency: int | str | None, count: int | None, event: str | None, engine: str = "qemu",
    system: bool = False,
) -> tuple[Counted, int]:
    """What is counted, and the period; parameters as `record_program`.

    Raises
    ------
    CommandError
        The event is not known, or the rate not possible.
    """
    if engine == "native" and frequency is None and count is None and event is None:
        frequency = _DEFAULT_FREQUENCY
    if frequency is not None:
        most = _MAX_FREQUENCY.get(engine, _MAX_FREQUENCY["qemu"])
        hertz = most if frequency == "max" else int(frequency)
        if not 1 <= hertz <= most:
            raise CommandError(f"-F {hertz}: 1 to {most} hertz with the {engine} engine")
        return Counted.TIME, 1_000_000_000 // hertz
    counted = counted_event(event or _DEFAULT_EVENT, system)
    count = 100003 if count is None else count
    if count < 1:
        raise CommandError(f"-c {count}: at least 1")
    return counted, count
