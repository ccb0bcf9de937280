"""Numbers of the perf ABI: record types, sample fields, branch entries, header features.

Sources: ``include/uapi/linux/perf_event.h`` and
``tools/perf/Documentation/perf.data-file-format.txt`` of Linux 6.1, with what later
versions added.  Little endian throughout, as x86 is.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

import numpy as np

from lbrcore import BranchClass

__all__ = [
    "ATTR_SIZES", "BRANCH_COUNTERS", "BRANCH_COUNTER_BITS", "BRANCH_ENTRY_DTYPE",
    "BRANCH_TYPE_NAMES", "MISC_CPUMODE", "MISC_EXEC",
    "MISC_KERNEL", "MISC_MMAP_BUILD_ID", "MISC_USER", "NEW_TYPE_NAMES", "NEW_TYPE_SHIFT",
    "PERF_MAGIC", "PIPE_HEADER_SIZE", "PRIV_SHIFT", "SPEC_NAMES", "SPEC_SHIFT", "TYPE_SHIFT",
    "AttrFlag", "BranchSample", "BranchType", "EntryFlag", "Feature", "ReadFormat", "Record",
    "SampleType", "branch_class", "branch_type", "entry_flags",
]

PERF_MAGIC: Final = b"PERFILE2"
PIPE_HEADER_SIZE: Final = 16

#: Sizes that ``perf_event_attr`` has had: VER0 to VER8.
ATTR_SIZES: Final = (64, 72, 80, 96, 104, 112, 120, 128, 136)

#: One ``perf_branch_entry``: 24 bytes; `flags` is its third word (`EntryFlag` and fields).
BRANCH_ENTRY_DTYPE: Final = np.dtype([("from", "<u8"), ("to", "<u8"), ("flags", "<u8")])

MISC_CPUMODE: Final = 7
MISC_KERNEL: Final = 1
MISC_USER: Final = 2
MISC_EXEC: Final = 1 << 13  # of COMM; in MMAP the same bit means MMAP_DATA
MISC_MMAP_BUILD_ID: Final = 1 << 14


class Record(IntEnum):
    """``enum perf_event_type`` and, from 64, ``perf_user_event_type``."""

    MMAP = 1
    LOST = 2
    COMM = 3
    EXIT = 4
    THROTTLE = 5
    UNTHROTTLE = 6
    FORK = 7
    READ = 8
    SAMPLE = 9
    MMAP2 = 10
    AUX = 11
    ITRACE_START = 12
    LOST_SAMPLES = 13
    SWITCH = 14
    SWITCH_CPU_WIDE = 15
    NAMESPACES = 16
    KSYMBOL = 17
    BPF_EVENT = 18
    CGROUP = 19
    TEXT_POKE = 20
    AUX_OUTPUT_HW_ID = 21
    CALLCHAIN_DEFERRED = 22
    HEADER_ATTR = 64
    HEADER_EVENT_TYPE = 65
    HEADER_TRACING_DATA = 66
    HEADER_BUILD_ID = 67
    FINISHED_ROUND = 68
    ID_INDEX = 69
    AUXTRACE_INFO = 70
    AUXTRACE = 71
    AUXTRACE_ERROR = 72
    THREAD_MAP = 73
    CPU_MAP = 74
    STAT_CONFIG = 75
    STAT = 76
    STAT_ROUND = 77
    EVENT_UPDATE = 78
    TIME_CONV = 79
    HEADER_FEATURE = 80
    COMPRESSED = 81
    FINISHED_INIT = 82
    COMPRESSED2 = 83
    BPF_METADATA = 84


class SampleType(IntFlag):
    """``PERF_SAMPLE_*``: the fields of a SAMPLE, and of the trailer of other records."""

    IP = 1 << 0
    TID = 1 << 1
    TIME = 1 << 2
    ADDR = 1 << 3
    READ = 1 << 4
    CALLCHAIN = 1 << 5
    ID = 1 << 6
    CPU = 1 << 7
    PERIOD = 1 << 8
    STREAM_ID = 1 << 9
    RAW = 1 << 10
    BRANCH_STACK = 1 << 11
    REGS_USER = 1 << 12
    STACK_USER = 1 << 13
    WEIGHT = 1 << 14
    DATA_SRC = 1 << 15
    IDENTIFIER = 1 << 16
    TRANSACTION = 1 << 17
    REGS_INTR = 1 << 18
    PHYS_ADDR = 1 << 19
    AUX = 1 << 20
    CGROUP = 1 << 21
    DATA_PAGE_SIZE = 1 << 22
    CODE_PAGE_SIZE = 1 << 23
    WEIGHT_STRUCT = 1 << 24


class ReadFormat(IntFlag):
    """``PERF_FORMAT_*``: what a READ field holds."""

    TOTAL_TIME_ENABLED = 1
    TOTAL_TIME_RUNNING = 2
    ID = 4
    GROUP = 8
    LOST = 16


class BranchSample(IntFlag):
    """``PERF_SAMPLE_BRANCH_*``: the filter and the form of branch stacks."""

    USER = 1 << 0
    KERNEL = 1 << 1
    HV = 1 << 2
    ANY = 1 << 3
    ANY_CALL = 1 << 4
    ANY_RETURN = 1 << 5
    IND_CALL = 1 << 6
    ABORT_TX = 1 << 7
    IN_TX = 1 << 8
    NO_TX = 1 << 9
    COND = 1 << 10
    CALL_STACK = 1 << 11
    IND_JUMP = 1 << 12
    CALL = 1 << 13
    NO_FLAGS = 1 << 14
    NO_CYCLES = 1 << 15
    TYPE_SAVE = 1 << 16
    HW_INDEX = 1 << 17
    PRIV_SAVE = 1 << 18
    COUNTERS = 1 << 19


#: COUNTERS: counters in a word, and bits of each, as Linux has them on Intel's processors.
BRANCH_COUNTERS: Final = 4
BRANCH_COUNTER_BITS: Final = 2


class AttrFlag(IntFlag):
    """The bit field of ``perf_event_attr`` at offset 40."""

    DISABLED = 1 << 0
    INHERIT = 1 << 1
    EXCLUDE_USER = 1 << 4
    EXCLUDE_KERNEL = 1 << 5
    EXCLUDE_HV = 1 << 6
    MMAP = 1 << 8
    COMM = 1 << 9
    FREQ = 1 << 10
    TASK = 1 << 13
    PRECISE_IP_LOW = 1 << 15
    PRECISE_IP_HIGH = 1 << 16
    SAMPLE_ID_ALL = 1 << 18
    MMAP2 = 1 << 23
    COMM_EXEC = 1 << 24


class Feature(IntEnum):
    """``HEADER_*``: bit numbers of the header's feature bitmap."""

    TRACING_DATA = 1
    BUILD_ID = 2
    HOSTNAME = 3
    OSRELEASE = 4
    VERSION = 5
    ARCH = 6
    NRCPUS = 7
    CPUDESC = 8
    CPUID = 9
    TOTAL_MEM = 10
    CMDLINE = 11
    EVENT_DESC = 12
    CPU_TOPOLOGY = 13
    NUMA_TOPOLOGY = 14
    BRANCH_STACK = 15
    PMU_MAPPINGS = 16
    GROUP_DESC = 17
    AUXTRACE = 18
    STAT = 19
    CACHE = 20
    SAMPLE_TIME = 21
    MEM_TOPOLOGY = 22
    CLOCKID = 23
    DIR_FORMAT = 24
    BPF_PROG_INFO = 25
    BPF_BTF = 26
    COMPRESSED = 27
    CPU_PMU_CAPS = 28
    CLOCK_DATA = 29
    HYBRID_TOPOLOGY = 30
    PMU_CAPS = 31


class EntryFlag(IntFlag):
    """The single bits of a branch entry's third word."""

    MISPRED = 1
    PREDICTED = 2
    IN_TX = 4
    ABORT = 8
    NOT_TAKEN = 1 << 33  # perf 6.14 and newer; older ones ignore it


#: Where the fields of the third word begin; cycles are 16 bits from 4.
TYPE_SHIFT: Final = 20  # 4 bits, BranchType
SPEC_SHIFT: Final = 24  # 2 bits
NEW_TYPE_SHIFT: Final = 26  # 4 bits, when the type is EXTEND_ABI
PRIV_SHIFT: Final = 30  # 3 bits: unknown, user, kernel, hypervisor


class BranchType(IntEnum):
    """``PERF_BR_*``."""

    UNKNOWN = 0
    COND = 1
    UNCOND = 2
    IND = 3
    CALL = 4
    IND_CALL = 5
    RET = 6
    SYSCALL = 7
    SYSRET = 8
    COND_CALL = 9
    COND_RET = 10
    ERET = 11
    IRQ = 12
    SERROR = 13
    NO_TX = 14
    EXTEND_ABI = 15


#: As perf script prints them: index is the type.
BRANCH_TYPE_NAMES: Final = ("", *(kind.name for kind in list(BranchType)[1:15]), "EXTEND_ABI")
#: ``PERF_BR_NEW_*``, printed in place of EXTEND_ABI; perf prints the x86 build's names.
NEW_TYPE_NAMES: Final = (
    "FAULT_ALGN", "FAULT_DATA", "FAULT_INST", "ARCH_1", "ARCH_2", "ARCH_3", "ARCH_4", "ARCH_5",
)
SPEC_NAMES: Final = ("-", "SPEC_WRONG_PATH", "NON_SPEC_CORRECT_PATH", "SPEC_CORRECT_PATH")

#: BranchClass -> BranchType, as perf's x86 decoder maps what it finds at FROM.
_TYPE_OF_CLASS: Final = {
    BranchClass.COND: BranchType.COND,
    BranchClass.NEAR_IND_JMP: BranchType.IND,
    BranchClass.NEAR_REL_JMP: BranchType.UNCOND,
    BranchClass.NEAR_IND_CALL: BranchType.IND_CALL,
    BranchClass.NEAR_REL_CALL: BranchType.CALL,
    BranchClass.NEAR_RET: BranchType.RET,
    BranchClass.NOT_TAKEN: BranchType.COND,
    BranchClass.ZERO_CALL: BranchType.CALL,
    BranchClass.SYSCALL: BranchType.SYSCALL,
    BranchClass.SYSRET: BranchType.SYSRET,
    BranchClass.IRET: BranchType.ERET,
    BranchClass.INTERRUPT: BranchType.IRQ,
    BranchClass.EXCEPTION: BranchType.IRQ,
}
_CLASS_OF_TYPE: Final = {
    BranchType.COND: BranchClass.COND,
    BranchType.UNCOND: BranchClass.NEAR_REL_JMP,
    BranchType.IND: BranchClass.NEAR_IND_JMP,
    BranchType.CALL: BranchClass.NEAR_REL_CALL,
    BranchType.IND_CALL: BranchClass.NEAR_IND_CALL,
    BranchType.RET: BranchClass.NEAR_RET,
    BranchType.SYSCALL: BranchClass.SYSCALL,
    BranchType.SYSRET: BranchClass.SYSRET,
    BranchType.ERET: BranchClass.IRET,
    BranchType.IRQ: BranchClass.INTERRUPT,
}


def branch_type(branch: BranchClass) -> BranchType:
    """``PERF_BR_*`` of a branch class; UNKNOWN for what perf has no type for."""
    return _TYPE_OF_CLASS.get(branch, BranchType.UNKNOWN)


def branch_class(kind: BranchType) -> BranchClass | None:
    """Branch class of a ``PERF_BR_*``; None where the type does not determine it."""
    return _CLASS_OF_TYPE.get(kind)


def entry_flags(
    *, mispredicted: bool = False, predicted: bool = False, in_tx: bool = False,
    abort: bool = False, cycles: int = 0, kind: int = 0, spec: int = 0, new_type: int = 0,
    priv: int = 0, not_taken: bool = False,
) -> int:
    """Third word of a branch entry; the fields are cut to their widths."""
    word = mispredicted | predicted << 1 | in_tx << 2 | abort << 3 | (cycles & 0xFFFF) << 4
    word |= (kind & 15) << TYPE_SHIFT | (spec & 3) << SPEC_SHIFT
    return word | (new_type & 15) << NEW_TYPE_SHIFT | (priv & 7) << PRIV_SHIFT | not_taken << 33
