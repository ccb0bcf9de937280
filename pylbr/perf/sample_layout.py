"""What a SAMPLE record of perf.data holds."""

from __future__ import annotations

from dataclasses import dataclass

from pylbr.perf.abi import BranchSample, SampleType

__all__ = ["NEEDED_FIELDS", "SAMPLE_FIELDS", "SampleLayout"]

#: No consumer can do without these.
NEEDED_FIELDS = SampleType.IP | SampleType.TID | SampleType.BRANCH_STACK
#: What this package writes of a sample.
SAMPLE_FIELDS = (
    NEEDED_FIELDS | SampleType.TIME | SampleType.ID | SampleType.CPU | SampleType.PERIOD
    | SampleType.CALLCHAIN | SampleType.IDENTIFIER
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """Fields of the SAMPLE records of one file; all events of a file share them.

    Attributes
    ----------
    sample_type : int
        `SampleType` bits: `NEEDED_FIELDS`, and of `SAMPLE_FIELDS` what is wanted.
    branch_sample_type : int
        `BranchSample` bits; HW_INDEX and COUNTERS add a field each.
    ids : tuple of int
        Identifier of each event, in the order of the events.
    """

    sample_type: int
    branch_sample_type: int
    ids: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.sample_type & ~SAMPLE_FIELDS or ~self.sample_type & NEEDED_FIELDS:
            raise ValueError(f"sample_type {self.sample_type:#x} cannot be written")

    @property
    def fixed_words(self) -> int:
        """Words of a record without its entries, counters and callers."""
        one_word = self.sample_type & ~SampleType.BRANCH_STACK
        header, count = 1, 1
        hw_index = bool(self.branch_sample_type & BranchSample.HW_INDEX)
        return header + one_word.bit_count() + count + hw_index
