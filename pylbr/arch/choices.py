"""What the manual leaves open, one named constant each.

Every constant says which reading was taken and why.  Those about recording itself
live beside the record loop in ``lbrcore``.
"""

from __future__ import annotations

#: CPUID.0DH.15:ECX[1], 64-byte alignment of the LBR component in a compacted area.
#: 0: with Linux's RFBM {0,1,15} and {15} both readings place it at 576.
LBR_XSAVE_ALIGNED = False

#: CPUID.0DH.15:EAX where the largest depth is below 32: 40 + 24 * depth, which Linux
#: demands before it uses XSAVES for LBRs.
LBR_XSAVE_SIZE_FOLLOWS_DEPTH = True

#: A non-canonical WRMSR of IA32_LER_FROM_IP or IA32_LER_TO_IP: the table has no sentence
#: that it is ignored, as it has for the records; taken as ignored too, since the same
#: hardware writes both and XRSTORS loads both.
LER_WRITE_IGNORES_HIGH_BITS = True

#: A non-canonical WRMSR of a legacy FROM or TO faults: the Haswell quirk (a kernel address
#: with bits 62:61 clear is refused) shows that a check exists.
LEGACY_NONCANONICAL_WRITE_FAULTS = True

#: LBR_FMT of models before IA32_PERF_CAPABILITIES or whose value no source at hand gives.
#: Core 2 and Bonnell store plain 64-bit addresses without flags; NetBurst 3+ likewise.
LBR_FORMAT_CORE2 = 2
LBR_FORMAT_BONNELL = 2
LBR_FORMAT_NETBURST = 1
#: Silvermont's FROM has the MISPRED bit of Nehalem (SDM vol. 4, Silvermont table).
LBR_FORMAT_SILVERMONT = 3
#: Tremont: Linux uses its Skylake set-up, so flags and cycles lie in INFO; it has no TSX.
LBR_FORMAT_TREMONT = 7

#: A register of the table that this model lacks, touched by the host: reads 0, and takes a
#: write of 0 only.  KVM's convention for KVM_GET_MSRS and KVM_SET_MSRS.
HOST_ABSENT_READS_ZERO = True

#: Bits above the counter width in a WRMSR of IA32_FIXED_CTRx fault, as they do in the
#: full-width aliases of IA32_PMCx.
FIXED_COUNTER_HIGH_BITS_FAULT = True

#: Counters do not count what the stream does not carry: reference cycles, slots, events
#: with a CMASK, INV or edge condition.
UNCARRIED_EVENTS_COUNT_ZERO = True

#: A branch and the instructions before it are counted at the privilege level it comes from.
COUNT_AT_SOURCE_CPL = True

#: The branch that makes a counter overflow is recorded before the PMI freezes the LBRs.
OVERFLOWING_BRANCH_IS_RECORDED = True

#: FREEZE_LBRS_ON_PMI on a processor with architectural LBRs but a version 2 or 3 PMU, which
#: no real part is: clears LBREn, as KVM's emulation does for its guests.
FREEZE_BELOW_V4_CLEARS_LBREN = True

#: MSR_LBR_SELECT at a warm reset: the table of its bits says 0 at RESET, and only the stack
#: (FROM, TO, INFO, TOS, LER) is listed as surviving.
LEGACY_SELECT_SURVIVES_WARM_RESET = False

#: VM exit stores IA32_LBR_CTL in the guest field whenever the processor has the field, as
#: with the other such MSRs, whatever the entry control says.
VM_EXIT_ALWAYS_SAVES_LBR_CTL = True

#: An injected #DB leaves IA32_LBR_CTL alone, as injection leaves IA32_DEBUGCTL alone
#: (SDM vol. 3, 26.5.1.1).
INJECTED_DB_CLEARS_LBREN = False

#: An event injected at VM entry is delivered through the IDT and so makes the record that
#: any such delivery makes.
INJECTION_MAKES_RECORD = True

#: A #DB does not load LER: the debug exception is outside of every branch record.
DB_LOADS_LER = False

#: Counters stop inside an opt-out enclave, and IA32_PERF_GLOBAL_STATUS.ASCI tells of it.
OPT_OUT_ENCLAVE_STOPS_COUNTERS = True

#: AMD: what a record of a retired branch has in TO[63:62] (valid, spec): valid, not
#: speculative.  Retirement is all that a trace shows.
AMD_RETIRED_VALID_SPEC = 0b10

#: AMD: a debug exception clears IA32_DEBUGCTL.LBR, which is the one-deep facility's bit;
#: DBG_EXTN_CFG.LBRV2EN has no sentence of its own and stays.
AMD_DB_CLEARS_LBRV2EN = False

#: An LBR write of IA32_LBR_DEPTH while LBREn = 1 is legal; no source restricts it.
DEPTH_WRITE_WHILE_ENABLED = True
