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
from tests.manual import (
    DBG_EXTN_CFG,
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_DS_AREA,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_LER_INFO,
    IA32_LER_TO_IP,
    IA32_PEBS_ENABLE,
    IA32_PERF_CAPABILITIES,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_INUSE,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_PERF_GLOBAL_STATUS_SET,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    IA32_RTIT_CTL,
    IA32_XSS,
    LBR_SELECT,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
    MSR_PEBS_DATA_CFG,
    PERF_CNTR_GLOBAL_CTL,
    PERF_CNTR_GLOBAL_STATUS,
    PERF_CNTR_GLOBAL_STATUS_CLR,
    PERF_CTL0,
    SAMP_BR_FROM_0,
)

CHUNK = 1 << 24
VMX = {*range(0x480, 0x485), 0x48B, *range(0x48D, 0x491)}
DEBUGCTL, DS_AREA, RTIT_CTL, XSS = IA32_DEBUGCTL, IA32_DS_AREA, IA32_RTIT_CTL, IA32_XSS
CAPABILITIES = IA32_PERF_CAPABILITIES
LEGACY_LBR = {DEBUGCTL, MSR_LASTBRANCH_TOS, IA32_LER_FROM_IP, IA32_LER_TO_IP}


def records(n: int, *bases: int) -> set[int]:
    return {base + i for base in bases for i in range(n)}


def pmu(version: int, general: int, fixed: int, full_width: bool) -> set[int]:
    found = records(general, IA32_PMC0, IA32_PERFEVTSEL0) | records(fixed, IA32_FIXED_CTR0)
    if full_width:
        found |= records(general, IA32_A_PMC0)
    if version >= 2:
        found |= {IA32_FIXED_CTR_CTRL, IA32_PERF_GLOBAL_STATUS, IA32_PERF_GLOBAL_CTRL,
                  IA32_PERF_GLOBAL_STATUS_RESET}
    if version >= 4:
        found |= {IA32_PERF_GLOBAL_STATUS_SET, IA32_PERF_GLOBAL_INUSE}
    return found


def architectural(depth: int = 32) -> set[int]:
    """DEBUGCTL, CTL, DEPTH, LER and the records: 102 at depth 32."""
    return {DEBUGCTL, IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_LER_FROM_IP, IA32_LER_TO_IP,
            IA32_LER_INFO} | records(
        depth, IA32_LBR_0_INFO, IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP)


SERVER = VMX | {DS_AREA, RTIT_CTL, XSS, CAPABILITIES, IA32_PEBS_ENABLE, MSR_PEBS_DATA_CFG}
#: Model -> what answers RDMSR after RESET.
EXPECTED: dict[str, set[int]] = {
    "sapphire-rapids": architectural() | pmu(5, 8, 4, True) | SERVER | {0x1C4, 0x1C5},
    "alder-lake-e": architectural() | pmu(5, 6, 3, True) | SERVER,
    "sierra-forest": architectural() | pmu(5, 8, 3, True) | SERVER,
    "skylake": LEGACY_LBR | {MSR_LBR_SELECT} | records(32, 0x680, 0x6C0, 0xDC0) | pmu(4, 4, 3, True)
    | VMX | {DS_AREA, RTIT_CTL, XSS, CAPABILITIES, IA32_PEBS_ENABLE},
    "haswell": LEGACY_LBR | {MSR_LBR_SELECT} | records(16, 0x680, 0x6C0) | pmu(3, 4, 3, True) | VMX
    | {DS_AREA, CAPABILITIES, IA32_PEBS_ENABLE},
    "nehalem": LEGACY_LBR | {MSR_LBR_SELECT} | records(16, 0x680, 0x6C0) | pmu(3, 4, 3, False) | VMX
    | {DS_AREA, CAPABILITIES, IA32_PEBS_ENABLE},
    "silvermont": LEGACY_LBR | {MSR_LBR_SELECT} | records(8, 0x40, 0x60) | pmu(3, 2, 3, False) | VMX
    | {DS_AREA, CAPABILITIES, IA32_PEBS_ENABLE},
    "core2": LEGACY_LBR | records(4, 0x40, 0x60) | pmu(2, 2, 3, False) | VMX
    | {DS_AREA, CAPABILITIES},
    "core-duo": LEGACY_LBR | records(8, 0x40) | pmu(1, 2, 0, False) | {DS_AREA},
    "pentium-m": LEGACY_LBR | records(8, 0x40),
    "willamette": {DEBUGCTL, 0x1D7, 0x1D8, 0x1DA, DS_AREA} | records(4, 0x1DB),
    "prescott": {DEBUGCTL, 0x1D7, 0x1D8, 0x1DA, DS_AREA} | records(16, 0x680, 0x6C0),
    "zen4": {DEBUGCTL, LBR_SELECT, DBG_EXTN_CFG, XSS, PERF_CNTR_GLOBAL_STATUS,
             PERF_CNTR_GLOBAL_CTL, PERF_CNTR_GLOBAL_STATUS_CLR}
    | records(32, SAMP_BR_FROM_0) | records(12, PERF_CTL0),
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
