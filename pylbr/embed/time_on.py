"""What a seed varies: for how long a machine has been on when its guest starts.

The time-stamp counter and the CMOS clock show it, and nothing else of the machine is of chance: it
is where a guest's random numbers come from, as there is no RDRAND.
"""

from __future__ import annotations

import hashlib

from pylbr.errors import ConfigurationError

__all__ = ["LONGEST", "time_on"]

#: Ticks; 260 days.
LONGEST = 1 << 50
_SEEDS = 1 << 64


def time_on(seed: int) -> int:
    """Ticks before the guest starts, less than `LONGEST`; the same for the same seed.

    Raises
    ------
    ConfigurationError
        The seed is negative or has more than 64 bits.
    """
    if not 0 <= seed < _SEEDS:
        raise ConfigurationError(f"seed: must be 0 to {_SEEDS - 1}, not {seed}")
    digest = hashlib.sha256(seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest[:8], "little") % LONGEST
