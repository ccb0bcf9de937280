from numpy import uint64
from numpy.typing import NDArray

from pylbr.perf.sample_layout import SampleLayout
from pylbr.perf.stacks import Samples

def pack_samples(
    out: NDArray[uint64], first: int, samples: Samples, layout: SampleLayout
) -> tuple[int, int]: ...
