"""Samples with records of the facility, as arrays: what samplers make.

`pylbr.perf.entries.perf_samples` turns them into `pylbr.perf.stacks.Samples`, the form
in which perf hands them out and every writer and aggregation takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbrcore import ENTRY_DTYPE, INFO_ALL
from pylbr.arch.bits import INFO_PMCN_CNT

__all__ = ["INFO_UNCOUNTED", "SampleBatch"]

#: Every field of INFO but the counts of logged events.
INFO_UNCOUNTED = INFO_ALL & ~INFO_PMCN_CNT

_COLUMNS = {
    "ip": "u8", "pid": "i4", "tid": "i4", "cpu": "u4", "time": "u8", "period": "u8",
    "event": "u2", "nr": "u4", "starts": "i8",
}  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SampleBatch:
    """n samples in the order in which they were taken.

    The stack of sample i is ``entries[starts[i] : starts[i] + nr[i]]``, newest first.  A
    sampler that fills an array of shape (n, depth) passes it as it is to `build`: nothing is
    copied, `starts` is then ``i * depth`` and what lies after ``nr[i]`` entries is not read.

    Attributes
    ----------
    ip : ndarray of u8, shape (n,)
        Where the program stood: linear address of the instruction to run next.
    pid, tid : ndarray of i4, shape (n,)
        Process (thread group) and thread.
    cpu : ndarray of u4, shape (n,)
        Logical processor.
    time : ndarray of u8, shape (n,)
        Nanoseconds on the clock of the trace, not decreasing within one CPU.
    period : ndarray of u8, shape (n,)
        Events since the previous sample of the same event.
    event : ndarray of u2, shape (n,)
        Index into the list of events that goes with the batch.
    nr : ndarray of u4, shape (n,)
        Entries in the stack.
    starts : ndarray of i8, shape (n,)
        Index of the newest entry in `entries`.
    entries : ndarray of ENTRY_DTYPE, shape (m,)
    classes : ndarray of u1, shape (m,), optional
        `lbrcore.BranchClass` of each entry, where the sampler has it: INFO has one code for
        all members of OTHER_BRANCH, perf has several.
    hw_idx : ndarray of u8, shape (n,), optional
        Physical index of the newest entry (legacy TOS).
    info_mask : int
        Bits of INFO that the recording processor fills in (``lbr_config.info_mask``); fields
        outside mean nothing.
    """

    ip: NDArray[np.uint64]
    pid: NDArray[np.int32]
    tid: NDArray[np.int32]
    cpu: NDArray[np.uint32]
    time: NDArray[np.uint64]
    period: NDArray[np.uint64]
    event: NDArray[np.uint16]
    nr: NDArray[np.uint32]
    starts: NDArray[np.int64]
    entries: NDArray[np.void]
    classes: NDArray[np.uint8] | None = None
    hw_idx: NDArray[np.uint64] | None = None
    info_mask: int = field(default=INFO_UNCOUNTED)

    def __post_init__(self) -> None:
        n, m = len(self.ip), len(self.entries)
        for name, dtype in _COLUMNS.items():
            _check(name, getattr(self, name), dtype, n)
        _check("entries", self.entries, ENTRY_DTYPE, m)
        for name, dtype, length in (("classes", "u1", m), ("hw_idx", "u8", n)):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), dtype, length)
        if n and (self.starts.min() < 0 or (self.starts + self.nr).max() > m):
            raise ValueError("starts, nr: a stack reaches outside of entries")

    @classmethod
    def build(
        cls,
        ip: ArrayLike,
        entries: NDArray[np.void],
        nr: ArrayLike | None = None,
        starts: ArrayLike | None = None,
        **columns: Any,
    ) -> SampleBatch:
        """Batch from what there is; columns left out are 0, or 1 for `period`.

        Parameters
        ----------
        ip : array_like of u8, shape (n,)
        entries : ndarray, shape (n, depth), or (m,) together with `nr`
        nr : array_like of u4, shape (n,), optional
            Default: all of a row.
        starts : array_like of i8, shape (n,), optional
            Default for flat `entries`: each stack follows the one before.
        **columns
            Any other attribute of the class.
        """
        ip = np.ascontiguousarray(ip, "u8")
        n = len(ip)
        if entries.ndim == 2:
            if len(entries) != n:
                raise ValueError(f"entries: {len(entries)} rows for {n} samples")
            depth = entries.shape[1]
            if nr is None:
                nr = np.full(n, depth, "u4")
            elif n and np.max(nr) > depth:
                raise ValueError(f"nr: more than the {depth} entries of a row")
            starts = np.arange(n, dtype="i8") * depth
            if columns.get("classes") is not None:
                columns["classes"] = columns["classes"].reshape(-1)
        elif nr is None:
            raise ValueError("nr: needed with flat entries")
        nr = np.ascontiguousarray(nr, "u4")
        if starts is None:
            starts = np.cumsum(nr, dtype="i8") - nr
        values: dict[str, Any] = {
            "ip": ip, "nr": nr, "starts": starts, "entries": entries.reshape(-1), **columns,
        }  # fmt: skip
        for name, dtype in _COLUMNS.items():
            default = np.ones if name == "period" else np.zeros
            given = values.get(name)
            values[name] = (
                default(n, dtype) if given is None
                else np.ascontiguousarray(np.broadcast_to(np.asarray(given, dtype), (n,)))
            )  # fmt: skip
        return cls(**values)

    def __len__(self) -> int:
        return len(self.ip)

    def stack(self, i: int) -> NDArray[np.void]:
        """Entries of sample `i`, newest first: a view."""
        start = int(self.starts[i])
        return self.entries[start : start + int(self.nr[i])]

    def stacks(self) -> Iterator[NDArray[np.void]]:
        """Every stack, as a view, in the order of the samples."""
        return (self.stack(i) for i in range(len(self)))

    def select(self, which: slice | NDArray[Any]) -> SampleBatch:
        """Batch of some of the samples (slice, index array or mask); entries are shared."""
        per_sample: dict[str, Any] = {
            name: np.ascontiguousarray(getattr(self, name)[which]) for name in _COLUMNS
        }
        hw_idx = None if self.hw_idx is None else np.ascontiguousarray(self.hw_idx[which])
        return replace(self, **per_sample, hw_idx=hw_idx)

    @classmethod
    def concat(cls, batches: Sequence[SampleBatch]) -> SampleBatch:
        """One batch of several with the same `info_mask`."""
        if not batches:
            raise ValueError("no batch given")
        first = batches[0]
        if any(b.info_mask != first.info_mask for b in batches):
            raise ValueError("batches differ in info_mask")
        base = np.cumsum([0] + [len(b.entries) for b in batches])
        values: dict[str, Any] = {"info_mask": first.info_mask}
        for item in fields(cls):
            if item.name == "info_mask":
                continue
            parts = [getattr(b, item.name) for b in batches]
            if item.name == "starts":
                parts = [p + shift for p, shift in zip(parts, base, strict=False)]
            values[item.name] = None if any(p is None for p in parts) else np.concatenate(parts)
        return cls(**values)


def _check(name: str, array: Any, dtype: Any, length: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"{name}: a one-dimensional array of {np.dtype(dtype)} is needed")
    if len(array) != length:
        raise ValueError(f"{name}: {len(array)} values where {length} are needed")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: not contiguous")
