"""A record of a ChampSim trace, and the registers that distinguish its branches.

Source: ChampSim's ``inc/trace_instruction.h`` and ``inc/instruction.h``.
"""

from __future__ import annotations

from typing import Final

import numpy as np

__all__ = ["FLAGS", "INSTRUCTION_POINTER", "RECORD", "STACK_POINTER"]

RECORD: Final = np.dtype([
    ("ip", "<u8"), ("is_branch", "u1"), ("taken", "u1"), ("written", "u1", (2,)),
    ("read", "u1", (4,)), ("stored", "<u8", (2,)), ("loaded", "<u8", (4,)),
])
STACK_POINTER: Final = 6
FLAGS: Final = 25
INSTRUCTION_POINTER: Final = 26
