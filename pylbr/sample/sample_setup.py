"""What samples a trace: a processor, its branch filter, and the events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

from lbrcore import INFO_CLASS, LbrConfig, LbrState
from lbrcore.events import Unit
from pylbr.arch.bits import DEBUGCTL_FREEZE_LBRS_ON_PMI, IA32_DEBUGCTL
from pylbr.arch.features import CpuModel
from pylbr.arch.models import DEFAULT_MODEL
from pylbr.arch.models import model as model_named
from pylbr.cpu import Processor, facility
from pylbr.errors import ConfigurationError, GeneralProtection
from pylbr.perf.abi import BranchSample
from pylbr.perf.branch_filter import control_value, parse_filter, program
from pylbr.perf.events import SampledEvent, parse_event
from pylbr.sample.counters import assign
from pylbr.sample.quirks import QUIRKS

__all__ = ["DEFAULT_MODEL", "SampleSetup"]



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
        FREEZE_LBRS_ON_PMI.  Default: as Linux, on but in call-stack mode, where there is such.
    scope : {"task", "cpu"}
        Whose counters: each task has its own, or each CPU.  Linux resets the LBRs when a task
        is switched in, but saves and restores those of a task with a call stack.
    engine : {"lazy", "architectural"}
        The samples are the same.
    quirks : sequence of str
        Of `pylbr.sample.quirks.QUIRKS`, for a processor that has them; default none.
        "doubled-newest": a share of the samples has the newest record twice, drawn with the
        seed of the first event.

    Raises
    ------
    ConfigurationError
        The processor has no LBRs, or not what the filter, the depth and the events need.
    """

    model: CpuModel | str = DEFAULT_MODEL
    branches: str | int = "any,u"
    events: Sequence[SampledEvent] = ()
    depth: int | None = None
    freeze: bool | None = None
    scope: Literal["task", "cpu"] = "task"
    engine: Literal["lazy", "architectural"] = "lazy"
    quirks: Sequence[str] = ()
    #: ``branch_sample_type`` of the filter.
    branch_sample_type: int = field(init=False)

    def __post_init__(self) -> None:
        kind = parse_filter(self.branches) if isinstance(self.branches, str) else self.branches
        object.__setattr__(self, "branch_sample_type", kind)
        freezes = _freezes(self.processor)
        if self.freeze is None:
            object.__setattr__(self, "freeze", freezes and not self.call_stack)
        elif self.freeze and not freezes:
            raise ConfigurationError(
                f"freeze: {self.processor.name} has no FREEZE_LBRS_ON_PMI")
        if self.scope not in ("task", "cpu"):
            raise ConfigurationError(f"scope: task or cpu, not {self.scope!r}")
        if self.engine not in ("lazy", "architectural"):
            raise ConfigurationError(f"engine: lazy or architectural, not {self.engine!r}")
        for quirk in self.quirks:
            if quirk not in QUIRKS:
                raise ConfigurationError(f"quirk {quirk!r}: not one of {', '.join(QUIRKS)}")
            if self.call_stack or not getattr(self.processor.legacy, "doubles_newest", False):
                raise ConfigurationError(
                    f"quirk {quirk!r}: was recorded on Skylake (--cpu skylake), in stacks of "
                    "branches, not of calls")
        assign(self.events, self.processor)
        if kind & BranchSample.COUNTERS and not self.config().event_counters:
            raise ConfigurationError(
                f"counter: the records of {self.processor.name} log no events")
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

    @property
    def logs(self) -> bool:
        """The counters log what they count into the records."""
        return bool(self.branch_sample_type & BranchSample.COUNTERS)

    def config(self, *, classes: bool = False) -> LbrConfig:
        """What the processor's facility offers; with `classes`, records contain those too."""
        return _config(self.processor, classes)

    def control(self) -> int:
        """IA32_LBR_CTL or MSR_LBR_SELECT for the filter."""
        return control_value(self.config(), self.branch_sample_type)

    def facility(self, *, classes: bool = False) -> LbrState:
        """A fresh facility, set up and recording; `classes` as `config` has it."""
        lbr = _facility(self.config(classes=classes), self.branch_sample_type, self.depth)
        if lbr is None:
            raise ConfigurationError(
                f"depth {self.depth}: {self.processor.name} has {self.config().depths}")
        return lbr.copy()

    def columns(self) -> tuple[str, ...]:
        """Columns of a trace that decide the samples, where they are there."""
        config = self.config()
        wanted = ["from", "to", "class", "flags", "cpl_from", "cpl_to"]
        units = {event.counted.unit for event in self.events}
        if config.info_mask & 0xFFFF or Unit.CYCLES in units:
            wanted.append("cycles")
        if Unit.INSTRUCTIONS in units:
            wanted.append("instructions")
        if self.logs:
            wanted.append("events")
        return tuple(wanted)


@cache
def _config(model: CpuModel, classes: bool) -> LbrConfig:
    config = facility.config(model)
    return replace(config, info_mask=config.info_mask | (INFO_CLASS if classes else 0))


@cache
def _facility(config: LbrConfig, branch_sample_type: int, depth: int | None) -> LbrState | None:
    """None if there is no such depth."""
    lbr = LbrState(config)
    program(lbr, branch_sample_type)
    if config.event_counters and not branch_sample_type & BranchSample.COUNTERS:
        lbr.event_mask = 0
    if depth is not None and depth != lbr.depth:
        if depth not in config.depths:
            return None
        lbr.depth = depth
    return lbr


@cache
def _freezes(model: CpuModel) -> bool:
    """Whether IA32_DEBUGCTL has FREEZE_LBRS_ON_PMI."""
    try:
        Processor(model).wrmsr(IA32_DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    except GeneralProtection:
        return False
    return True
