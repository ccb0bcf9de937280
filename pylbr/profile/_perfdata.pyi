from numpy import uint64
from numpy.typing import NDArray

from pylbr.perf.stacks import Samples
from pylbr.profile.layout import SampleLayout

def pack_samples(
    out: NDArray[uint64], first: int, samples: Samples, layout: SampleLayout
) -> tuple[int, int]: ...
