"""What the manual leaves open, and what was chosen; the values stand in ``choices.pxd``.

`CHOICES` maps each name to (value, reason).  Structural choices, which no constant can flip:

- A near RET in call-stack mode removes the newest record, the others move up and the last entry
  reads 0 (so Linux's "last entry FROM == 0: the stack is not full" holds, and RISC-V CTR's
  documented twin works alike); on an empty stack nothing is left to remove.
- A RET that the CPL or class filter keeps out removes nothing: only unfiltered branches count.
- FROM, TO and LER are kept as written and read sign-extended from MAXLINADDR - 1, the processor's
  enumerated width whatever CR4.LA57 is; so are values from XRSTORS and from a trace.
- The ring of a branch's end decides in the CPL filter, and legacy flavours show the FROM of a
  filtered ring.  Confirmed: of 119,424 entries of a Skylake-SP recording of user branches, 5 come
  from the kernel with their kernel FROM and none goes there.
- CYC_CNT counts on through a ring that is filtered out.  Confirmed: 9,436 cycles over a stay in
  the kernel, the same recording.
- Records that were never filled read 0 and are the oldest.  Confirmed: 26 of 26 stacks.
- FROM of a branch with prefixes is the address of its first prefix; the caller has to pass that
  one.  Confirmed: `repz ret`, 10.74 M of 10.74 M entries.
- A filter dimension that CPUID.1CH:EBX does not offer lets everything pass.
- With CPL filtering offered and both CPL bits clear nothing is recorded.
- The reserved bits of IA32_LBR_DEPTH are those above what the largest depth needs.
"""

from lbrcore cimport choices

CHOICES = {
    "OTHER_BRANCH_TYPE": (
        choices.OTHER_BRANCH_TYPE,
        "Which of the 1xxxB codes of BR_TYPE hardware writes for OTHER_BRANCH: an Intel "
        "engineer's mail speaks of 8."),
    "RESTART_KEEPS_CYCLES": (
        choices.RESTART_KEEPS_CYCLES,
        "0: when recording starts (LBREn set, LBR_FRZ cleared, XRSTORS), CYC_CNT has no earlier "
        "record to count from, so the first record has CYC_CNT 0 and CYC_CNT_VALID 0. Confirmed "
        "for format 5: Skylake-SP recordings, the oldest entry of a stack after a stop has a cycle "
        "count of 0 in 4 of 4, two other processors in 1 of 1 each."),
    "POP_RESTARTS_CYCLES": (
        choices.POP_RESTARTS_CYCLES,
        "0: a RET in call-stack mode makes no record, so CYC_CNT keeps counting since the "
        "last one that was made."),
    "CALL_STACK_RECORDS_OTHERS": (
        choices.CALL_STACK_RECORDS_OTHERS,
        "0: in call-stack mode only near CALLs push; COND, JMPs and OTHER_BRANCH are inhibited "
        "even if enabled (documented as undefined; RISC-V CTR inhibits them). 1: they are "
        "recorded like calls."),
    "EMPTY_STACK_CLEARS_LER": (
        choices.EMPTY_STACK_CLEARS_LER,
        "0: an exception or interrupt before any record leaves LER as it was."),
    "DEPTH_WRITE_CLEARS_LER": (
        choices.DEPTH_WRITE_CLEARS_LER,
        "0: every source states that a write of IA32_LBR_DEPTH zeroes the LBR entries, none "
        "names LER."),
}
