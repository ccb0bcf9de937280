"""What surrounds the processor and shows in CPUID and in MSRs: the machine's clock, its APIC, and
what its engine does not do.

One row per fact.  Sources: SDM vol. 2, CPUID; SDM vol. 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from pylbr.embed.timestamp import TimeStamp
from pylbr.errors import GeneralProtection

__all__ = ["CPUID_ROWS", "FREQUENCY", "MSR_ROWS", "CpuidRow", "MsrRow", "Platform"]

#: Ticks per second of the time-stamp counter, the APIC timer and the CMOS clock; a tick is an
#: instruction.
FREQUENCY = 50_000_000
_MHZ = FREQUENCY // 1_000_000
EAX, EBX, ECX, EDX = range(4)
_ALL = 0xFFFFFFFF
#: The leaf of architectural LBRs: processors that have it are newer than Meltdown and MDS.
ARCHITECTURAL_LBR = 0x1C


@dataclass(frozen=True)
class CpuidRow:
    """Bits of one output register of CPUID that the machine decides.

    Attributes
    ----------
    leaf : int
    subleaf : int or None
        None: any.
    register : int
        0 to 3 for EAX to EDX.
    mask, value : int
    meaning : str
    since : int
        Of processors whose highest leaf is at least this.
    """

    leaf: int
    subleaf: int | None
    register: int
    mask: int
    value: int
    meaning: str
    since: int = 0


CPUID_ROWS = (
    CpuidRow(0x1, None, ECX, 1 << 21, 1 << 21, "x2APIC"),
    CpuidRow(0x1, None, ECX, 1 << 30, 0, "RDRAND: the engine's is the host's, no run repeats"),
    CpuidRow(0x6, None, EAX, 1 << 2, 1 << 2, "ARAT: the APIC timer never stops"),
    CpuidRow(0x7, 0, EBX, 1 << 9, 0, "ERMS: the engine repeats byte by byte, MOVSQ is faster"),
    CpuidRow(0x7, 0, ECX, 3 << 3, 0, "PKU, OSPKE: XSAVE has no component for PKRU here"),
    CpuidRow(0x7, 0, EDX, 1 << 4, 0, "FSRM, as ERMS"),
    CpuidRow(0x7, 0, EBX, 1 << 18, 0, "RDSEED, as RDRAND"),
    CpuidRow(0x7, 0, EDX, 1 << 29, 1 << 29, "IA32_ARCH_CAPABILITIES", ARCHITECTURAL_LBR),
    CpuidRow(0xD, 1, EAX, 1 << 1, 0, "XSAVEC: the engine does not execute it"),
    CpuidRow(0x15, None, EAX, _ALL, 1, "TSC ticks per clock of the crystal, denominator"),
    CpuidRow(0x15, None, EBX, _ALL, 1, "numerator"),
    CpuidRow(0x15, None, ECX, _ALL, FREQUENCY, "Hz of the crystal, which is the bus clock too"),
    CpuidRow(0x15, None, EDX, _ALL, 0, "reserved"),
    *(CpuidRow(0x16, None, register, _ALL, mhz, "base, highest and bus frequency, MHz")
      for register, mhz in ((EAX, _MHZ), (EBX, _MHZ), (ECX, _MHZ), (EDX, 0))),
    CpuidRow(0x80000007, None, EDX, 1 << 8, 1 << 8, "the TSC is invariant"),
)
#: Topology: a bit of leaf 1, and the leaf with its types of level.
_HTT, _TOPOLOGY_LEAF, _SMT, _CORE = 1 << 28, 0xB, 1, 2
#: The highest basic leaf is at least the last of these.
_EXTENDED = 0x80000000
_HIGHEST = max(row.leaf for row in CPUID_ROWS if row.leaf < _EXTENDED)


@dataclass(frozen=True)
class MsrRow:
    """An MSR around the processor.

    Attributes
    ----------
    index : int
    name : str
    reset : int
    writable : int or None
        Bits that a write changes; the others stay.  None: a write is refused.
    meaning : str
    since : int
        As of `CpuidRow`.
    """

    index: int
    name: str
    reset: int
    writable: int | None
    meaning: str
    since: int = 0


TSC, TSC_ADJUST = 0x10, 0x3B
MSR_ROWS = (
    MsrRow(TSC, "IA32_TIME_STAMP_COUNTER", 0, (1 << 64) - 1, "the machine's clock"),
    MsrRow(0x17, "IA32_PLATFORM_ID", 0, 0, "socket"),
    MsrRow(0x34, "MSR_SMI_COUNT", 0, 0, "there are none"),
    MsrRow(0x3A, "IA32_FEATURE_CONTROL", 1, 0, "locked: no VMX, no SGX"),
    MsrRow(TSC_ADJUST, "IA32_TSC_ADJUST", 0, (1 << 64) - 1, "added to the clock"),
    MsrRow(0x4E, "MSR_PPIN_CTL", 1, 0, "locked out"),
    MsrRow(0x8B, "IA32_BIOS_SIGN_ID", 0, 0, "no microcode update"),
    MsrRow(0x10A, "IA32_ARCH_CAPABILITIES", 1 << 0 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8, None,
           "RDCL_NO, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO", ARCHITECTURAL_LBR),
    MsrRow(0x140, "MSR_MISC_FEATURES_ENABLES", 0, 0, "no CPUID faulting"),
    MsrRow(0x179, "IA32_MCG_CAP", 0, 0, "no banks: nothing reports machine checks"),
    MsrRow(0x17A, "IA32_MCG_STATUS", 0, 7, "no machine check is in progress"),
    MsrRow(0x1A0, "IA32_MISC_ENABLE", 1 << 0 | 1 << 7 | 1 << 11 | 1 << 12, 1,
           "fast strings, performance monitoring; BTS and PEBS are unavailable"),
    MsrRow(0x1A6, "MSR_OFFCORE_RSP_0", 0, (1 << 46) - 1, "matches nothing"),
    MsrRow(0x1A7, "MSR_OFFCORE_RSP_1", 0, (1 << 46) - 1, "matches nothing"),
    MsrRow(0x3F6, "MSR_PEBS_LD_LAT", 0, 0xFFFF, "without effect: PEBS is unavailable"),
    MsrRow(0x3F7, "MSR_PEBS_FRONTEND", 0, 0xFFFFFF, "without effect: PEBS is unavailable"),
)


class Platform:
    """The rows, and the values of the MSRs among them.

    Parameters
    ----------
    stamp : TimeStamp
    highest : int
        Highest basic leaf of CPUID of the processor alone.
    identity : int
        APIC ID.
    processors : int
        Of the machine: cores of one package.
    """

    def __init__(self, stamp: TimeStamp, highest: int, identity: int = 0,
                 processors: int = 1) -> None:
        self._stamp, self._highest = stamp, highest
        self._identity, self._processors = identity, processors
        self._rows = {row.index: row for row in MSR_ROWS if row.since <= highest}
        self._values = {index: row.reset for index, row in self._rows.items()}

    @property
    def msrs(self) -> frozenset[int]:
        """The MSRs that `msr` serves."""
        return frozenset(self._rows)

    def cpuid(self, leaf: int, subleaf: int, out: list[int]) -> list[int]:
        """The processor's answer with what the machine decides.

        A processor whose leaves end before those of the machine has nothing in the leaves between:
        alone it would answer there as it does at its highest.
        """
        if leaf == 0:
            out[EAX] = max(out[EAX], _HIGHEST)
        if self._highest < min(leaf, _HIGHEST) and leaf < _EXTENDED:
            out, leaf = [0] * 4, min(leaf, _HIGHEST)
        for row in CPUID_ROWS:
            if row.leaf == leaf and row.subleaf in (None, subleaf) and (
                    row.since <= self._highest):
                out[row.register] = out[row.register] & ~row.mask | row.value
        if self._processors > 1:
            self._topology(leaf, subleaf, out)
        return out

    def _topology(self, leaf: int, subleaf: int, out: list[int]) -> None:
        """One package, a core per processor, a thread per core (SDM vol. 3, 9.9)."""
        if leaf == 1:
            out[EBX] = out[EBX] & 0xFFFF | self._processors << 16 | self._identity << 24
            out[EDX] |= _HTT
        elif leaf == _TOPOLOGY_LEAF <= self._highest:
            shift = (self._processors - 1).bit_length()
            level = ((0, 1, _SMT), (shift, self._processors, _CORE))[subleaf:subleaf + 1]
            eax, ebx, kind = level[0] if level else (0, 0, 0)
            out[:] = eax, ebx, kind << 8 | subleaf & 0xFF, self._identity

    def msr(self, index: int, value: int | None) -> int:
        """RDMSR, or WRMSR of `value`; what is read.

        Raises
        ------
        GeneralProtection
            No such register.
        """
        row = self._rows.get(index)
        if row is None:
            raise GeneralProtection(f"MSR {index:#x}", index, value, 0, "no such register")
        if index in (TSC, TSC_ADJUST):
            return self._time(index, value)
        if value is not None and row.writable is None:
            raise GeneralProtection(row.name, index, value, 0, "read-only")
        if value is not None and row.writable is not None:
            self._values[index] = self._values[index] & ~row.writable | value & row.writable
        return self._values[index]

    def _time(self, index: int, value: int | None) -> int:
        if value is not None:
            before = self._stamp.clock() if index == TSC else 0
            self._stamp.offset = value - before & (1 << 64) - 1
        return self._stamp.now() if index == TSC else self._stamp.offset

    def state(self) -> dict[str, int]:
        """The values, as JSON can hold them."""
        return {**{str(index): value for index, value in self._values.items()},
                "offset": self._stamp.offset, "clock": self._stamp.clock()}

    def load(self, state: dict[str, int]) -> None:
        """Take over what `state` returned; ValueError, KeyError or TypeError for anything else."""
        if set(state) != {*map(str, self._rows), "offset", "clock"} or not all(
                type(value) is int and 0 <= value < 1 << 64 for value in state.values()):
            raise ValueError("no state of the registers around a processor")
        for row in self._rows.values():
            value = state[str(row.index)]
            if (value ^ row.reset) & ~(row.writable or 0):
                raise ValueError(f"{row.name} {value:#x}: no value of it")
            self._values[row.index] = value
        self._stamp.offset = state["offset"]
        self._stamp.idle = state["clock"] - self._stamp.clock() + self._stamp.idle
