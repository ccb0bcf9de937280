"""Samples and their entries as tables: NumPy, Arrow, pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pylbr.extras import Extra, needed
from pylbr.perf.abi import (
    NEW_TYPE_SHIFT,
    PRIV_SHIFT,
    SPEC_SHIFT,
    TYPE_SHIFT,
    EntryFlag,
)
from pylbr.perf.stacks import Samples

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
else:
    pa = Extra("pyarrow")

__all__ = [
    "ENTRY_ROW_DTYPE", "SAMPLE_ROW_DTYPE", "arrow_entries", "arrow_samples", "arrow_table",
    "entry_rows", "pandas_entries", "pandas_samples", "sample_rows",
]  # fmt: skip

#: One row a sample; `first` is the index of its newest entry among the rows of entries.
SAMPLE_ROW_DTYPE = np.dtype(
    [
        ("ip", "u8"), ("time", "u8"), ("period", "u8"), ("pid", "i4"), ("tid", "i4"),
        ("cpu", "u4"), ("event", "u2"), ("nr", "u4"), ("first", "i8"),
    ]
)  # fmt: skip

#: One row an entry: its sample, its place in the stack (0 is the newest), and the fields of
#: ``perf_branch_entry``; `counters` as `Samples` has them, 0 without.
ENTRY_ROW_DTYPE = np.dtype(
    [
        ("sample", "u8"), ("position", "u4"), ("from", "u8"), ("to", "u8"), ("mispred", "?"),
        ("predicted", "?"), ("in_tx", "?"), ("abort", "?"), ("cycles", "u2"), ("type", "u1"),
        ("spec", "u1"), ("new_type", "u1"), ("priv", "u1"), ("not_taken", "?"), ("counters", "u8"),
    ]
)  # fmt: skip


def sample_rows(samples: Samples) -> NDArray[np.void]:
    """`SAMPLE_ROW_DTYPE`, shape (n,)."""
    rows = np.empty(len(samples), SAMPLE_ROW_DTYPE)
    for name in ("ip", "time", "period", "pid", "tid", "cpu", "event"):
        rows[name] = getattr(samples, name)
    rows["nr"] = np.diff(samples.offsets)
    rows["first"] = samples.offsets[:-1]
    return rows


def entry_rows(samples: Samples, first_sample: int = 0) -> NDArray[np.void]:
    """`ENTRY_ROW_DTYPE`, shape (k,), newest first within each sample.

    Parameters
    ----------
    samples : Samples
    first_sample : int
        Number of the first sample, for streams of several batches.
    """
    nr = np.diff(samples.offsets)
    entries = samples.entries[samples.offsets[0] : samples.offsets[-1]]
    rows = np.empty(len(entries), ENTRY_ROW_DTYPE)
    rows["sample"] = np.repeat(np.arange(first_sample, first_sample + len(nr), dtype="u8"), nr)
    rows["position"] = np.arange(len(entries)) - np.repeat(
        samples.offsets[:-1] - samples.offsets[0], nr
    )
    rows["from"], rows["to"] = entries["from"], entries["to"]
    flags = entries["flags"]
    for name, bit in (
        ("mispred", EntryFlag.MISPRED), ("predicted", EntryFlag.PREDICTED),
        ("in_tx", EntryFlag.IN_TX), ("abort", EntryFlag.ABORT), ("not_taken", EntryFlag.NOT_TAKEN),
    ):  # fmt: skip
        rows[name] = flags & np.uint64(bit) != 0
    for name, shift, width in (
        ("cycles", 4, 16), ("type", TYPE_SHIFT, 4), ("spec", SPEC_SHIFT, 2),
        ("new_type", NEW_TYPE_SHIFT, 4), ("priv", PRIV_SHIFT, 3),
    ):  # fmt: skip
        rows[name] = flags >> np.uint64(shift) & np.uint64((1 << width) - 1)
    rows["counters"] = 0 if samples.counters is None else samples.counters[
        samples.offsets[0] : samples.offsets[-1]]
    return rows


def arrow_table(rows: NDArray[np.void]) -> pa.Table:
    """Table with the columns of a structured array."""
    return pa.table({name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()})


def arrow_samples(samples: Samples) -> pa.Table:
    """`sample_rows` as an Arrow table."""
    return arrow_table(sample_rows(samples))


def arrow_entries(samples: Samples, first_sample: int = 0) -> pa.Table:
    """`entry_rows` as an Arrow table."""
    return arrow_table(entry_rows(samples, first_sample))


def pandas_samples(samples: Samples) -> pd.DataFrame:
    """`sample_rows` as a pandas data frame; needs pandas."""
    needed("pandas")
    return arrow_samples(samples).to_pandas()


def pandas_entries(samples: Samples, first_sample: int = 0) -> pd.DataFrame:
    """`entry_rows` as a pandas data frame; needs pandas."""
    needed("pandas")
    return arrow_entries(samples, first_sample).to_pandas()
