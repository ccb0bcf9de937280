"""Former name of `pylbr.record.toolchain`."""

import sys

from pylbr.record import toolchain

sys.modules[__name__] = toolchain
