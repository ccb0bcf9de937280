"""Which MSR numbers answer: a sweep through RDMSR, and the numbers that should, by hand.

    python -m tests.cpu.sweep sapphire-rapids --jobs 2       all 2**32 of them: an hour a core

Exits with 1 if the two differ.
"""

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from pylbr.cpu import Processor
from pylbr.errors import GeneralProtection

CHUNK = 1 << 24
VMX = {*range(0x480, 0x485), 0x48B, *range(0x48D, 0x491)}
DEBUGCTL, DS_AREA, RTIT_CTL, XSS, CAPABILITIES = 0x1D9, 0x600, 0x570, 0xDA0, 0x345
LEGACY_LBR = {DEBUGCTL, 0x1C9, 0x1DD, 0x1DE}


def records(n: int, *bases: int) -> set[int]:
    return {base + i for base in bases for i in range(n)}


def pmu(version: int, general: int, fixed: int, full_width: bool) -> set[int]:
    found = records(general, 0xC1, 0x186) | records(fixed, 0x309)
    if full_width:
        found |= records(general, 0x4C1)
    if version >= 2:
        found |= {0x38D, 0x38E, 0x38F, 0x390}
    if version >= 4:
        found |= {0x391, 0x392}
    return found


def architectural(depth: int = 32) -> set[int]:
    """DEBUGCTL, CTL, DEPTH, LER and the records: 102 at depth 32."""
    return {DEBUGCTL, 0x14CE, 0x14CF, 0x1DD, 0x1DE, 0x1E0} | records(
        depth, 0x1200, 0x1500, 0x1600)


SERVER = VMX | {DS_AREA, RTIT_CTL, XSS, CAPABILITIES, 0x3F1, 0x3F2}
#: Model -> what answers RDMSR after RESET.
EXPECTED: dict[str, set[int]] = {
    "sapphire-rapids": architectural() | pmu(5, 8, 4, True) | SERVER | {0x1C4, 0x1C5},
    "alder-lake-e": architectural() | pmu(5, 6, 3, True) | SERVER,
    "sierra-forest": architectural() | pmu(5, 8, 3, True) | SERVER,
    "skylake": LEGACY_LBR | {0x1C8} | records(32, 0x680, 0x6C0, 0xDC0) | pmu(4, 4, 3, True) | VMX
    | {DS_AREA, RTIT_CTL, XSS, CAPABILITIES, 0x3F1},
    "haswell": LEGACY_LBR | {0x1C8} | records(16, 0x680, 0x6C0) | pmu(3, 4, 3, True) | VMX
    | {DS_AREA, CAPABILITIES, 0x3F1},
    "nehalem": LEGACY_LBR | {0x1C8} | records(16, 0x680, 0x6C0) | pmu(3, 4, 3, False) | VMX
    | {DS_AREA, CAPABILITIES, 0x3F1},
    "silvermont": LEGACY_LBR | {0x1C8} | records(8, 0x40, 0x60) | pmu(3, 2, 3, False) | VMX
    | {DS_AREA, CAPABILITIES, 0x3F1},
    "core2": LEGACY_LBR | records(4, 0x40, 0x60) | pmu(2, 2, 3, False) | VMX
    | {DS_AREA, CAPABILITIES},
    "core-duo": LEGACY_LBR | records(8, 0x40) | pmu(1, 2, 0, False) | {DS_AREA},
    "pentium-m": LEGACY_LBR | records(8, 0x40),
    "willamette": {DEBUGCTL, 0x1D7, 0x1D8, 0x1DA, DS_AREA} | records(4, 0x1DB),
    "prescott": {DEBUGCTL, 0x1D7, 0x1D8, 0x1DA, DS_AREA} | records(16, 0x680, 0x6C0),
    "zen4": {DEBUGCTL, 0xC000010E, 0xC000010F, XSS, 0xC0000300, 0xC0000301, 0xC0000302}
    | records(32, 0xC0010300) | records(12, 0xC0010200),
}


def answering(model: str, first: int, last: int) -> list[int]:
    """The numbers of [first, last) whose RDMSR does not fault."""
    rdmsr = Processor(model).rdmsr
    found = []
    for index in range(first, last):
        try:
            rdmsr(index)
        except GeneralProtection:
            continue
        found.append(index)
    return found


def sweep(model: str, first: int, last: int, jobs: int) -> Iterable[list[int]]:
    starts = range(first, last, CHUNK)
    ends = [min(start + CHUNK, last) for start in starts]
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(partial(answering, model), starts, ends)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=EXPECTED)
    parser.add_argument("--first", type=lambda s: int(s, 0), default=0)
    parser.add_argument("--last", type=lambda s: int(s, 0), default=1 << 32)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    found: list[int] = []
    for n, part in enumerate(sweep(args.model, args.first, args.last, args.jobs), 1):
        found += part
        done = min(args.first + n * CHUNK, args.last)
        print(f"\r{done:#x}, {len(found)} answer", end="", file=sys.stderr, flush=True)
    wanted = {index for index in EXPECTED[args.model] if args.first <= index < args.last}
    wrong = sorted(wanted ^ set(found))
    print(f"\n{args.model}: {args.last - args.first} numbers, {len(found)} answer, "
          f"{len(wrong)} unlike the table {[hex(index) for index in wrong[:8]]}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
