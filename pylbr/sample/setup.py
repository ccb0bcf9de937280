"""What samples a trace: a processor, its branch filter, and the events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from lbrcore import LbrState
from lbrcore.events import Unit
from pylbr.arch.features import CpuModel
from pylbr.arch.models import model as model_named
from pylbr.cpu.facility import facility
from pylbr.errors import ConfigurationError
from pylbr.sample.branch_filter import parse_filter, program
from pylbr.sample.events import SampledEvent, parse_event
from pylbr.trace.perf_abi import BranchSample

__all__ = ["DEFAULT_MODEL", "SampleSetup"]

DEFAULT_MODEL = "sapphire-rapids"


@dataclass(frozen=True)
class SampleSetup:
    """What samples a trace.

    Parameters
    ----------
    model : CpuModel or str
        Processor, or its name (`pylbr.arch.models.MODELS`).
    branches : str or int
        Filter: the words of ``perf record -j``, or ``branch_sample_type``.
    events : sequence of SampledEvent
        Counted at once; see `of`.
    depth : int, optional
        Default: the largest.
    freeze : bool, optional
        FREEZE_LBRS_ON_PMI.  Default: as Linux, on but in call-stack mode.
    scope : {"task", "cpu"}
        Whose counters: each task has its own, or each CPU.  Linux resets the LBRs when a task
        is switched in, but saves and restores those of a task with a call stack.
    engine : {"lazy", "architectural"}
        The samples are the same.

    Raises
    ------
    ConfigurationError
        The processor has no LBRs, or not those that the filter and the depth need.
    """

    model: CpuModel | str = DEFAULT_MODEL
    branches: str | int = "any,u"
    events: Sequence[SampledEvent] = ()
    depth: int | None = None
    freeze: bool | None = None
    scope: Literal["task", "cpu"] = "task"
    engine: Literal["lazy", "architectural"] = "lazy"
    #: ``branch_sample_type`` of the filter.
    branch_sample_type: int = field(init=False)

    def __post_init__(self) -> None:
        kind = parse_filter(self.branches) if isinstance(self.branches, str) else self.branches
        object.__setattr__(self, "branch_sample_type", kind)
        if self.freeze is None:
            object.__setattr__(self, "freeze", not self.call_stack)
        if self.scope not in ("task", "cpu"):
            raise ConfigurationError(f"scope: task or cpu, not {self.scope!r}")
        if self.engine not in ("lazy", "architectural"):
            raise ConfigurationError(f"engine: lazy or architectural, not {self.engine!r}")
        self.facility()

    @classmethod
    def of(
        cls, events: str | Sequence[str], period: int, *, model: CpuModel | str = DEFAULT_MODEL,
        jitter: int = 0, seed: int = 0, skid: int = 0, **rest: object,
    ) -> SampleSetup:
        """Setup with events by name, all of one period: ``of("branches:u", 10007)``.

        Parameters
        ----------
        events : str or sequence of str
            As `parse_event` takes them; event i is seeded with ``seed + i``.
        **rest
            Other parameters of the class.
        """
        processor = model_named(model) if isinstance(model, str) else model
        names = [events] if isinstance(events, str) else events
        parsed = [
            parse_event(name, period, table=processor.pmu.events, jitter=jitter,
                        seed=(seed + i) % (1 << 64), skid=skid)
            for i, name in enumerate(names)
        ]
        return cls(model=processor, events=tuple(parsed), **rest)  # type: ignore[arg-type]

    @property
    def call_stack(self) -> bool:
        """The filter is ``stack``."""
        return bool(self.branch_sample_type & BranchSample.CALL_STACK)

    @property
    def processor(self) -> CpuModel:
        """The model itself, however it was given."""
        return model_named(self.model) if isinstance(self.model, str) else self.model

    def facility(self) -> LbrState:
        """A fresh facility, set up and recording."""
        return _facility(self.processor, self.branch_sample_type, self.depth).copy()

    def columns(self) -> tuple[str, ...]:
        """Columns of a trace that decide the samples, where they are there."""
        config = self.facility().config
        wanted = ["from", "to", "class", "flags", "cpl_from", "cpl_to"]
        units = {event.counted.unit for event in self.events}
        if config.info_mask & 0xFFFF or Unit.CYCLES in units:
            wanted.append("cycles")
        if Unit.INSTRUCTIONS in units:
            wanted.append("instructions")
        if config.event_counters:
            wanted.append("events")
        return tuple(wanted)


@cache
def _facility(model: CpuModel, branch_sample_type: int, depth: int | None) -> LbrState:
    lbr = facility(model)
    if lbr is None:
        raise ConfigurationError(f"model {model.name!r} has no last-branch records")
    program(lbr, branch_sample_type)
    if depth is not None and depth != lbr.depth:
        if depth not in lbr.config.depths:
            raise ConfigurationError(f"depth {depth}: {model.name} has {lbr.config.depths}")
        lbr.depth = depth
    return lbr
