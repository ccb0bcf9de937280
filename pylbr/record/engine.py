"""One interface for whatever runs a program and tells its branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np

from pylbr.errors import CommandError
from pylbr.record.constants import Counted
from pylbr.sample.batch import SampleBatch
from pylbr.trace.stacks import Comm, Exit, Fork, Mmap

__all__ = ["Engine", "Outcome", "Request", "Sink", "engine", "engines"]

#: Entry points of other packages' engines: a callable without arguments that makes one.
ENTRY_POINTS = "pylbr.engines"


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
    """

    command: Sequence[str]
    full: bool = False
    counted: Counted = Counted.BRANCHES
    period: int = 100003
    control: int = 0x7F0005
    depth: int = 32
    cycles: bool = False
    mispredicts: str = ""


class Sink(Protocol):
    """Takes what an engine finds, in the order in which it happened in each thread."""

    def record(self, record: Mmap | Comm | Fork | Exit) -> None:
        """A mapping of code or a change of tasks."""

    def samples(self, batch: SampleBatch) -> None:
        """Samples; only if samples were asked for."""

    def branches(self, task: int, branches: np.ndarray) -> None:
        """The next branches of a thread, BRANCH_DTYPE; only if all were asked for.  They
        come after all records of mappings and tasks.  `task` is the thread's id, plus
        `constants.IMAGE` for each program that its process had executed before."""


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
        What the user should know: programs not followed, things lost.
    """

    exit_code: int = 0
    gaps: int = 0
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)


class Engine(Protocol):
    """Runs programs."""

    def run(self, request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
        """Run the command to its end.

        Parameters
        ----------
        request : Request
        sink : Sink
        idle : callable
            Called some times a second while the program runs.

        Raises
        ------
        UnsupportedFeature
            The engine cannot work on this machine; the message says what to install.
        CommandError
            The program cannot be run.
        """


def engines() -> dict[str, Callable[[], Engine]]:
    """Every engine by name: ours, and those that entry points name."""
    from pylbr.record.qemu import QemuEngine

    found: dict[str, Callable[[], Engine]] = {"qemu": QemuEngine}
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, point.load())
    return found


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises
    ------
    CommandError
        There is none.
    """
    known = engines()
    if name not in known:
        raise CommandError(f"no engine {name!r}; there is {', '.join(sorted(known))}")
    return known[name]()
