"""Numbers in the facts of a block: flags, and conditions beyond the sixteen of Jcc."""

cdef enum block_flag:
    BLOCK_REP = 1       # last instruction repeats: the next block may be itself again
    BLOCK_FLUSH = 2     # changes what code an address means: CR0, CR3, CR4, INVLPG
    BLOCK_STORE = 4     # one instruction that stores: what is left of a block that wrote itself

cdef extern from "insn.h":
    enum:
        CONDITION_LOOPNE "X86_LOOPNE"
        CONDITION_LOOPE "X86_LOOPE"
        CONDITION_LOOP "X86_LOOP"
        CONDITION_JRCXZ "X86_JRCXZ"
        NO_BRANCH "X86_NO_BRANCH"

cdef enum:
    CONDITION_32BIT = 32  # counts in ECX
