from numpy import int64, uint64, void
from numpy.typing import NDArray

from pylbr.perf.batch import SampleBatch

def convert(
    batch: SampleBatch, branch_sample_type: int
) -> tuple[NDArray[int64], NDArray[void], NDArray[uint64] | None]: ...
