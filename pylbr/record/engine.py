"""The interface of engines, which run a program and report its branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from pylbr.errors import CommandError
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap
from pylbr.record.targets import X86_64, Target
from pylbr.record.wire_numbers import Counted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Engine", "Outcome", "Request", "Sink", "engine", "engines"]

#: Entry points of other packages' engines: a callable without arguments that makes one.
ENTRY_POINT_GROUP: Final = "pylbr.engines"
#: Module and class of each engine of ours.
BUILTIN: Final = {
    "native": "pylbr.record.native.engine:NativeEngine",
    "qemu": "pylbr.record.qemu:QemuEngine", "unicorn": "pylbr.record.unicorn:UnicornEngine",
    "system": "pylbr.system.engine:SystemEngine",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What to record.

    Attributes
    ----------
    command : sequence of str
        Program and arguments.
    full : bool
        Every branch; else samples.
    counted : Counted
        What `period` counts.
    period : int
        Between samples; nanoseconds for `Counted.TIME`.
    control : int
        IA32_LBR_CTL of the facility that the samples' windows go through.
    depth : int
        Its depth.
    cycles : bool
        Fill in cycles from the cost model.
    mispredicts : str
        Predictor model that fills in MISPRED (`lbrcore.predictor`); empty for none.
    pid, tid : int
        A process that runs already, in place of `command`, and its one thread to sample; 0: none.
    seconds : float
        How long to record a process that runs already; 0: until it ends or pylbr is interrupted.
    overhead : float
        Percent of a thread's time that windows may take (native engine).
    burst : int
        Stacks of a tick (native engine); 0: as many as the rate needs.
    most_bytes : int
        The largest file that a full trace may make; 0 for any.
    target : Target
        What the program runs on.
    system : bool
        The command is a QEMU's, which runs a system.
    privileges : int
        Whose events the period counts: 1 the programs', 2 the kernel's, 3 both.
    vmlinux : str
        File of the kernel of that; empty: the one that QEMU boots.
    """

    command: Sequence[str]
    full: bool = False
    counted: Counted = Counted.BRANCHES
    period: int = 100003
    control: int = 0x7F0005
    depth: int = 32
    cycles: bool = False
    mispredicts: str = ""
    pid: int = 0
    tid: int = 0
    seconds: float = 0.0
    overhead: float = 5.0
    burst: int = 0
    most_bytes: int = 0
    target: Target = X86_64
    system: bool = False
    privileges: int = 1
    vmlinux: str = ""


class Sink(Protocol):
    """Takes what an engine finds, in the order in which it happened in each thread."""

    def record(self, record: Mmap | Comm | Fork | Exit | Lost) -> None:
        """A mapping of code, a change of tasks, or samples that were lost."""

    def samples(self, batch: SampleBatch) -> None:
        """Samples; only if samples were asked for."""

    def expect(self, count: int, kept: int, ended: bool) -> None:
        """About how many branches the program has executed so far, or, once it has `ended`,
        will follow; `kept` is what they take, compressed, where they wait.  Only if all were
        asked for."""

    def branches(self, task: int, branches: np.ndarray) -> bool:
        """The next branches of a thread, BRANCH_DTYPE; only if all were asked for.  They
        come after all records of mappings and tasks.  `task` is the thread's id, plus
        `wire_numbers.IMAGE` for each program that its process had executed before.  False when
        the sink takes no more."""


@dataclass(slots=True)
class Outcome:
    """How a recording went.

    Attributes
    ----------
    exit_code : int
        The program's, 128 + N for signal N.
    gaps : int
        Steps between blocks that no branch explains.
    seconds : float
        From the start of the program to its end.
    remarks : list of str
        Remarks for the user: programs not followed, things lost.
    nothing : str
        Why there is not a single sample, where that is a failure.
    """

    exit_code: int = 0
    gaps: int = 0
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)
    nothing: str = ""


class Engine(Protocol):
    """Runs programs.

    Attributes
    ----------
    name : str
        As files name it.
    cycles : str
        Its model of cycles, in a few words.
    """

    name: str
    cycles: str

    def run(self, request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
        """Run the command to its end.

        Parameters
        ----------
        request : Request
        sink : Sink
        idle : callable
            Called several times per second while the program runs.

        Raises
        ------
        UnsupportedFeature
            The engine cannot work on this machine; the message names what to install.
        CommandError
            The program cannot be run.
        """


def engines() -> dict[str, EntryPoint]:
    """Every engine by name, none of them loaded: ours, and those of installed packages."""
    from importlib.metadata import EntryPoint, entry_points  # takes long to load

    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    return found | {
        name: EntryPoint(name, place, ENTRY_POINT_GROUP) for name, place in BUILTIN.items()
    }


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises
    ------
    CommandError
        There is none, or it cannot be loaded.
    """
    if name in BUILTIN:
        module, _, kind = BUILTIN[name].partition(":")
        ours: Engine = getattr(import_module(module), kind)()
        return ours
    known = engines()
    if name not in known:
        raise CommandError(f"no engine {name!r}; there is {', '.join(sorted(known))}")
    try:
        made: Engine = known[name].load()()
    except (ImportError, AttributeError) as error:
        raise CommandError(f"engine {name!r} ({known[name].value}): {error}") from error
    return made
