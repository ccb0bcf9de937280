from numpy import uint64
from numpy.typing import NDArray

from pylbr.profile.layout import SampleLayout
from pylbr.trace.stacks import Samples

def pack_samples(
    out: NDArray[uint64], first: int, samples: Samples, layout: SampleLayout
) -> tuple[int, int]: ...
