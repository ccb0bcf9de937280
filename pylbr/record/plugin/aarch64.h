/* Branches of AArch64 (Arm ARM DDI 0487, C4.1 "Branches, Exception Generating and System
 * instructions").  Freestanding.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_AARCH64_H
#define PYLBR_AARCH64_H

#include <stdint.h>

#include "lbrcore.h"

#define AARCH64_NO_BRANCH 255u

/* `bits` from bit `low` on as a signed number of words, in bytes. */
static inline int64_t aarch64_offset(uint32_t word, unsigned low, unsigned bits) {
    return (int64_t)((uint64_t)(word >> low) << (64 - bits)) >> (62 - bits) & ~(int64_t)3;
}

/* Unconditional branch to a register, with or without pointer authentication. */
static inline unsigned aarch64_register_branch(uint32_t word) {
    unsigned opc = word >> 21 & 0xf, op2 = word >> 16 & 0x1f, op3 = word >> 10 & 0x3f;
    unsigned rn = word >> 5 & 0x1f, op4 = word & 0x1f;
    if (op2 != 0x1f)
        return AARCH64_NO_BRANCH;
    int plain = op3 == 0 && op4 == 0, authenticated = op3 == 2 || op3 == 3;
    switch (opc) {
    case 0: return plain || (authenticated && op4 == 0x1f) ? LBR_NEAR_IND_JMP : AARCH64_NO_BRANCH;
    case 1: return plain || (authenticated && op4 == 0x1f) ? LBR_NEAR_IND_CALL : AARCH64_NO_BRANCH;
    case 2:
        return plain || (authenticated && op4 == 0x1f && rn == 0x1f) ? LBR_NEAR_RET
                                                                     : AARCH64_NO_BRANCH;
    case 8: return authenticated ? LBR_NEAR_IND_JMP : AARCH64_NO_BRANCH;
    case 9: return authenticated ? LBR_NEAR_IND_CALL : AARCH64_NO_BRANCH;
    default: return AARCH64_NO_BRANCH; /* ERET and DRPS are undefined at EL0 */
    }
}

/* Class of an instruction; *to is set for direct branches. */
static inline unsigned aarch64_branch(uint32_t word, uint64_t address, uint64_t *to) {
    if ((word & 0x7c000000) == 0x14000000) { /* B, BL */
        *to = address + (uint64_t)aarch64_offset(word, 0, 26);
        return word >> 31 ? LBR_NEAR_REL_CALL : LBR_NEAR_REL_JMP;
    }
    if ((word & 0xff000000) == 0x54000000 || (word & 0x7e000000) == 0x34000000) {
        *to = address + (uint64_t)aarch64_offset(word, 5, 19); /* B.cond, BC.cond; CBZ, CBNZ */
        return LBR_COND;
    }
    if ((word & 0x7e000000) == 0x36000000) { /* TBZ, TBNZ */
        *to = address + (uint64_t)aarch64_offset(word, 5, 14);
        return LBR_COND;
    }
    if ((word & 0xfe000000) == 0xd6000000)
        return aarch64_register_branch(word);
    if ((word & 0xffe0001f) == 0xd4000001)
        return LBR_SYSCALL; /* SVC */
    if ((word & 0xffe0001f) == 0xd4200000)
        return LBR_SOFT_INT; /* BRK */
    return AARCH64_NO_BRANCH;
}

#endif
