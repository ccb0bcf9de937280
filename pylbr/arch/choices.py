"""What the manual leaves open, one named constant each.

Each constant records one reading, with its reason.  Those about recording itself live in
``lbrcore.choices``.  "Confirmed" names recorded data or a dump of a real processor that shows
the choice to be right there.  Structural choices, which no constant can flip:

- Bits above the counter's width fault in a WRMSR of IA32_FIXED_CTRx, as in IA32_A_PMCx.
- Counters do not count what a stream does not carry: reference cycles, slots, events with a
  CMASK, INV or edge condition, and IN_TXCP, which would have to take counts back.
- A branch and the instructions before it are counted at the privilege level it comes from.
- The branch that makes a counter overflow is recorded before the PMI freezes the LBRs.
- A PEBS record is written at the overflow itself, and holds that branch's record too.
- An event injected at VM entry is delivered through the IDT, so its jump is a branch like any
  other; the sender of the event retires it.
- A #DB does not load LER: it is outside of every branch record.
- An event that FRED delivers has the handler's address as TO, and the FROM of an IDT delivery.
- IA32_LBR_DEPTH may be written while LBREn is 1; no source restricts it.
- The table of INFO has no reserved bits; PMCn_CNT of counters that log nothing holds what is
  written, as every other undefined bit.
"""

from __future__ import annotations

#: CPUID.0DH.15:ECX[1], 64-byte alignment of the LBR component in a compacted area.
#: Confirmed: 0DH.FH:ECX is 1 on Sapphire Rapids, whose 0DH.1:EBX of 2D00H fits only so, and
#: "64-byte alignment false" on Alder Lake (CPUID dumps).
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
#: Core 2 and Bonnell store plain 64-bit addresses without flags, and so does NetBurst 3+.
LBR_FORMAT_CORE2 = 2
LBR_FORMAT_BONNELL = 2
LBR_FORMAT_NETBURST = 1
#: Silvermont's FROM has the MISPRED bit of Nehalem (SDM vol. 4, Silvermont table).
LBR_FORMAT_SILVERMONT = 3
#: Silvermont and Airmont: bits 6 and 7 of MSR_LBR_SELECT suppress calls and returns, too, as on
#: Nehalem: Linux uses one map for all (nhm_lbr_sel_map); their manual section was not at hand.
SILVERMONT_JMPS_INCLUDE_CALLS = True
#: Tremont: Linux uses its Skylake set-up, so flags and cycles lie in INFO; it has no TSX.
LBR_FORMAT_TREMONT = 7

#: A register of the table that this model lacks, touched by the host: reads 0, and takes a
#: write of 0 only.  KVM's convention for KVM_GET_MSRS and KVM_SET_MSRS.
HOST_ABSENT_READS_ZERO = True

#: FREEZE_LBRS_ON_PMI on a processor with architectural LBRs but a version 2 or 3 PMU, which
#: no real part is: clears LBREn, as KVM's emulation does for its guests.
FREEZE_BELOW_V4_CLEARS_LBREN = True

#: MSR_LBR_SELECT at a warm reset: the table of its bits has 0 at RESET, and only the stack
#: (FROM, TO, INFO, TOS, LER) is listed as surviving.
LEGACY_SELECT_SURVIVES_WARM_RESET = False

#: VM exit stores IA32_LBR_CTL in the guest field whenever the processor has the field, as
#: with the other such MSRs, whatever the entry control is.
VM_EXIT_ALWAYS_SAVES_LBR_CTL = True

#: An injected #DB leaves IA32_LBR_CTL alone, as injection leaves IA32_DEBUGCTL alone
#: (SDM vol. 3, 26.5.1.1).
INJECTED_DB_CLEARS_LBREN = False

#: Counters stop inside an opt-out enclave, and IA32_PERF_GLOBAL_STATUS.ASCI reports it.
OPT_OUT_ENCLAVE_STOPS_COUNTERS = True

#: FRED: event delivery is OTHER_BRANCH with the class of what it delivers (interrupt, exception,
#: software interrupt, SYSCALL), ERETU and ERETS have that of IRET: all have BR_TYPE 8.  No text on
#: FRED and LBRs was found; the filter bit covers whatever enters and leaves a handler otherwise.
#: UNCONFIRMED.  The decoders of `pylbr.x86` have the class IRET for both returns.
FRED_IS_OTHER_BRANCH = True
#: FRED: #DB by FRED makes no record and clears LBREn, as by the IDT.  UNCONFIRMED.
FRED_DB_CLEARS_LBREN = True

#: Architectural PEBS: bits above 31 of what a counter continues with are ones where CFG_C.RELOAD is
#: not 0, as those of a negated period are; Linux writes the low half of one there.  UNCONFIRMED.
ARCH_PEBS_RELOAD_EXTENDS = True

#: Skylake: a share of the samples finds the newest record twice, equal in FROM and TO, as 966 of
#: 3,732 stacks recorded on a Skylake-SP do; BOLT works around it.  Taken as written twice, INFO
#: too, at places drawn at random: no source states what decides it.  Off by default, and applied
#: where samples are taken: the processor itself stays exact (`pylbr.sample.quirks`).
SKYLAKE_DOUBLED, SKYLAKE_STACKS = 966, 3732

#: AMD: what a record of a retired branch has in TO[63:62] (valid, spec): valid, not
#: speculative.  Retirement is all that a trace shows.
#: Confirmed: 128 of 128 entries recorded on Zen 4.
AMD_RETIRED_VALID_SPEC = 0b10

#: AMD: a debug exception clears IA32_DEBUGCTL.LBR, which is the one-deep facility's bit;
#: DBG_EXTN_CFG.LBRV2EN has no sentence of its own and stays.
AMD_DB_CLEARS_LBRV2EN = False

#: AMD: records and LBR_SELECT at a warm reset.  No source speaks of it; taken as a cold one.
AMD_SURVIVES_WARM_RESET = False
