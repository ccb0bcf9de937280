"""``python -m pylbr``."""

import sys

from pylbr.cli import main

sys.exit(main())
