"""Former name of `pylbr.record.wire_numbers`."""

import sys

from pylbr.record import wire_numbers

sys.modules[__name__] = wire_numbers
