"""What the tasks of a replay made, in a directory, so that an interrupted replay continues.

Each part has two files, its description and its samples, which appear when they are complete.  They
count for the same trace, setup and division alone, and samples only after the same state.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lbrcore.summary import Summary
from pylbr.errors import TraceError
from pylbr.perf.batch import SampleBatch
from pylbr.sample.description import Description, Segment
from pylbr.sample.part_file import read_part, write_part
from pylbr.sample.sampler import SamplerState

__all__ = ["PartStore"]

_ARRAYS = [field.name for field in fields(SampleBatch) if field.name != "info_mask"]
_MAPS = ("first_task", "first_cpu", "last_task", "last_cpu")


class PartStore:
    """A directory of parts.

    Parameters
    ----------
    directory : str
        Made if it does not exist.
    job : list
        What decides the samples, as JSON has it.

    Raises
    ------
    TraceError
        The directory cannot be made.
    """

    def __init__(self, directory: str, job: list[Any]) -> None:
        self.directory, self._job = Path(directory), _digest(job)
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise TraceError(directory, f"cannot be made: {error.strerror}") from error

    def description(self, number: int) -> Description | None:
        """The description of a part; None if it is not there, or of another job."""
        found = self._read(self._path(number, "description"), [self._job, number])
        if found is None:
            return None
        path, head, arrays = found
        try:
            summaries = [Summary.from_bytes(row.tobytes()) for row in arrays["summaries"]]
            rows, counts = arrays["rows"].tolist(), arrays["counts"].tolist()
            streams: dict[int, list[Segment]] = {}
            for key, row, summary, count in zip(
                    arrays["keys"].tolist(), rows, summaries, counts, strict=True):
                streams.setdefault(key, []).append(Segment(row, summary, tuple(count)))
            maps: dict[str, Any] = {name: {key: tuple(rest) if len(rest) > 1 else rest[0]
                           for key, *rest in head[name]} for name in _MAPS}
            return Description(
                head["begin"], head["end"], streams, cells=arrays.get("cells"),
                cell_rows=head["cell_rows"], task=head["task"], cpu=head["cpu"], **maps)
        except (KeyError, ValueError, TypeError) as error:
            raise _strange(path, error) from error

    def keep_description(self, number: int, part: Description) -> None:
        """Write one."""
        rows = [(key, *segment) for key, segments in part.streams.items() for segment in segments]
        head: dict[str, Any] = {
            name: getattr(part, name) for name in ("begin", "end", "cell_rows", "task", "cpu")}
        for name in _MAPS:
            head[name] = [[key, *(value if isinstance(value, tuple) else (value,))]
                          for key, value in getattr(part, name).items()]
        arrays: dict[str, Any] = {
            "keys": np.array([row[0] for row in rows], np.int64),
            "rows": np.array([row[1] for row in rows], np.int64),
            "counts": np.array([row[3] for row in rows], np.int64),
            "summaries": np.frombuffer(
                b"".join(row[2].to_bytes() for row in rows), np.uint8).reshape(len(rows), -1),
        }
        if part.cells is not None:
            arrays["cells"] = part.cells
        write_part(self._path(number, "description"), {"of": [self._job, number], **head}, arrays)

    def after(self, number: int, before: SamplerState) -> SamplerState | None:
        """The state after a part that is there; None if it is not, or began with another state."""
        found = self._read(self._path(number, "samples"), self._samples_of(number, before))
        return None if found is None else _state_of(found[0], found[1]["after"])

    def samples(self, number: int, before: SamplerState) -> list[SampleBatch]:
        """The samples of a part.

        Raises
        ------
        TraceError
            They are not there, or damaged.
        """
        path = self._path(number, "samples")
        found = self._read(path, self._samples_of(number, before))
        if found is None:
            raise TraceError(path, f"the samples of part {number} are not there; a directory of "
                             "parts must be the same for all workers")
        _, head, arrays = found
        batches = []
        try:
            for i, mask in enumerate(head["info_masks"]):
                columns = {name: arrays.get(f"{i}.{name}") for name in _ARRAYS}
                batches.append(SampleBatch(info_mask=mask, **columns))  # type: ignore[arg-type]
        except (KeyError, ValueError, TypeError) as error:
            raise _strange(path, error) from error
        return batches

    def keep_samples(
        self, number: int, before: SamplerState, after: SamplerState, batches: list[SampleBatch]
    ) -> None:
        """Write them."""
        if batches:
            batches = [SampleBatch.concat(batches)]
        arrays: dict[str, Any] = {
            f"{i}.{name}": getattr(batch, name) for i, batch in enumerate(batches)
            for name in _ARRAYS if getattr(batch, name) is not None}
        head = {"of": self._samples_of(number, before), "after": _packed(after),
                "info_masks": [batch.info_mask for batch in batches]}
        write_part(self._path(number, "samples"), head, arrays)

    def _samples_of(self, number: int, before: SamplerState) -> list[Any]:
        return [self._job, number, _digest(_packed(before))]

    def _path(self, number: int, kind: str) -> Path:
        return self.directory / f"part-{number:05}.{kind}"

    def _read(
        self, path: Path, expected: list[Any]
    ) -> tuple[Path, dict[str, Any], dict[str, Any]] | None:
        if not path.exists():
            return None
        head, arrays = read_part(path)
        return (path, head, arrays) if head.get("of") == expected else None


def _strange(path: Path, error: Exception) -> TraceError:
    return TraceError(path, f"is damaged ({error}); remove it, and it is made again")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _packed(state: SamplerState) -> list[Any]:
    """A state as JSON has it."""
    keys = [[key, [value.hex() if isinstance(value, bytes) else value for value in parts]]
            for key, parts in sorted(state.keys.items())]
    return [sorted(state.last_task.items()), sorted(state.last_cpu.items()), keys]


def _state_of(path: Path, packed: Any) -> SamplerState:
    try:
        tasks, cpus, keys = packed
        return SamplerState(dict(map(tuple, tasks)), dict(map(tuple, cpus)), {
            key: _key_of(parts) for key, parts in keys})
    except (ValueError, TypeError, IndexError) as error:
        raise _strange(path, error) from error


def _key_of(parts: list[Any]) -> tuple[Any, ...]:
    """`Replay.key` of what JSON made of it."""
    counters, pending, ctl, frozen, records, cycles, valid, events, rest = parts
    return (tuple(map(tuple, counters)), pending, ctl, frozen, bytes.fromhex(records), cycles,
            valid, tuple(events), None if rest is None else (rest[0], tuple(rest[1])))
