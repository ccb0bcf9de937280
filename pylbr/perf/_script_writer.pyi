from collections.abc import Sequence

from pylbr.perf.stacks import Samples

def format_stacks(
    samples: Samples, prefixes: Sequence[bytes] | None, ip: bool, brstack: bool, spec: bool
) -> bytes: ...
