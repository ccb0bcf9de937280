/* Branches of RV64GC, with the types of the Smctr specification's table of control transfers.
 * Freestanding.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_RISCV64_H
#define PYLBR_RISCV64_H

#include <stdint.h>

#include "lbrcore.h"

#define RISCV64_NO_BRANCH 255u

/* Bits `from` to `from` + `count` - 1 of `word`, moved to bit `to`. */
static inline uint32_t riscv64_bits(uint32_t word, unsigned from, unsigned count, unsigned to) {
    return (word >> from & ((1u << count) - 1)) << to;
}

static inline int64_t riscv64_signed(uint32_t value, unsigned bits) {
    return (int64_t)((uint64_t)value << (64 - bits)) >> (64 - bits);
}

static inline int riscv64_is_link(unsigned reg) {
    return reg == 1 || reg == 5;
}

/* JALR rd, rs1.  A co-routine swap returns and calls: the return is what is recorded. */
static inline unsigned riscv64_jalr(unsigned rd, unsigned rs1) {
    if (!riscv64_is_link(rd))
        return riscv64_is_link(rs1) ? LBR_NEAR_RET : LBR_NEAR_IND_JMP;
    return riscv64_is_link(rs1) && rs1 != rd ? LBR_NEAR_RET : LBR_NEAR_IND_CALL;
}

static inline unsigned riscv64_short(uint32_t word, uint64_t address, uint64_t *to) {
    unsigned function = word >> 13 & 7, quadrant = word & 3;
    unsigned rs1 = word >> 7 & 0x1f, rs2 = word >> 2 & 0x1f;
    if (quadrant == 1 && function == 5) { /* C.J */
        uint32_t offset = riscv64_bits(word, 12, 1, 11) | riscv64_bits(word, 11, 1, 4) |
                          riscv64_bits(word, 9, 2, 8) | riscv64_bits(word, 8, 1, 10) |
                          riscv64_bits(word, 7, 1, 6) | riscv64_bits(word, 6, 1, 7) |
                          riscv64_bits(word, 3, 3, 1) | riscv64_bits(word, 2, 1, 5);
        *to = address + (uint64_t)riscv64_signed(offset, 12);
        return LBR_NEAR_REL_JMP;
    }
    if (quadrant == 1 && function >= 6) { /* C.BEQZ, C.BNEZ */
        uint32_t offset = riscv64_bits(word, 12, 1, 8) | riscv64_bits(word, 10, 2, 3) |
                          riscv64_bits(word, 5, 2, 6) | riscv64_bits(word, 3, 2, 1) |
                          riscv64_bits(word, 2, 1, 5);
        *to = address + (uint64_t)riscv64_signed(offset, 9);
        return LBR_COND;
    }
    if (quadrant == 2 && function == 4 && !rs2) { /* C.JR, C.JALR, C.EBREAK */
        unsigned linked = word >> 12 & 1;
        if (rs1)
            return riscv64_jalr(linked, rs1);
        return linked ? LBR_SOFT_INT : RISCV64_NO_BRANCH;
    }
    return RISCV64_NO_BRANCH;
}

/* Class of an instruction; *to is set for direct branches. */
static inline unsigned riscv64_branch(uint32_t word, uint64_t address, uint64_t *to) {
    unsigned opcode = word & 0x7f, rd = word >> 7 & 0x1f, function = word >> 12 & 7;
    if ((word & 3) != 3)
        return riscv64_short(word & 0xffff, address, to);
    if (opcode == 0x6f) { /* JAL */
        uint32_t offset = riscv64_bits(word, 31, 1, 20) | riscv64_bits(word, 12, 8, 12) |
                          riscv64_bits(word, 20, 1, 11) | riscv64_bits(word, 21, 10, 1);
        *to = address + (uint64_t)riscv64_signed(offset, 21);
        return riscv64_is_link(rd) ? LBR_NEAR_REL_CALL : LBR_NEAR_REL_JMP;
    }
    if (opcode == 0x67 && function == 0)
        return riscv64_jalr(rd, word >> 15 & 0x1f);
    if (opcode == 0x63 && function != 2 && function != 3) {
        uint32_t offset = riscv64_bits(word, 31, 1, 12) | riscv64_bits(word, 7, 1, 11) |
                          riscv64_bits(word, 25, 6, 5) | riscv64_bits(word, 8, 4, 1);
        *to = address + (uint64_t)riscv64_signed(offset, 13);
        return LBR_COND;
    }
    if (word == 0x00000073)
        return LBR_SYSCALL; /* ECALL */
    if (word == 0x00100073)
        return LBR_SOFT_INT; /* EBREAK */
    return RISCV64_NO_BRANCH;
}

#endif
