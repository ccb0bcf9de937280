/* What the recorder must know of an x86-64 instruction in 64-bit mode: the class and target
 * of a branch (SDM vol. 2, opcode maps; vol. 3, table 20-2), and a price in cycles.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_DECODE_H
#define PYLBR_DECODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "wire.h"

/* enum lbr_class of lbrcore.h; repeated because the plugin is built on the user's machine. */
enum {
    CLS_COND = 0, CLS_NEAR_IND_JMP = 1, CLS_NEAR_REL_JMP = 2, CLS_NEAR_IND_CALL = 3,
    CLS_NEAR_REL_CALL = 4, CLS_NEAR_RET = 5, CLS_FAR_BRANCH = 8, CLS_SYSCALL = 9,
    CLS_SYSRET = 10, CLS_IRET = 11, CLS_SOFT_INT = 14
};

/* Offset of the opcode: behind legacy prefixes and REX. */
static inline size_t decode_prefixes(const uint8_t *code, size_t size) {
    size_t at = 0;
    while (at < size) {
        uint8_t b = code[at];
        int legacy = b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 ||
                     b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x64 || b == 0x65;
        if (!legacy && (b & 0xf0) != 0x40)
            break;
        at++;
    }
    return at;
}

static inline int64_t decode_relative(const uint8_t *code, size_t size, size_t width) {
    if (width == 1)
        return (int8_t)code[size - 1];
    int32_t value;
    memcpy(&value, code + size - 4, 4);
    return value;
}

/* Class of the instruction at `address`, WIRE_NO_BRANCH for one that is none.  *target is
 * set for direct branches, else to 0.  `size` is the instruction's exact length. */
static inline unsigned decode_branch(const uint8_t *code, size_t size, uint64_t address,
                                     uint64_t *target) {
    size_t at = decode_prefixes(code, size), left = size - at;
    unsigned cls = WIRE_NO_BRANCH, width = 0;
    *target = 0;
    if (!left)
        return WIRE_NO_BRANCH;
    uint8_t op = code[at], next = left > 1 ? code[at + 1] : 0, reg = (next >> 3) & 7;
    if ((op & 0xf0) == 0x70 || (op >= 0xe0 && op <= 0xe3))
        cls = CLS_COND, width = 1;
    else if (op == 0x0f && (next & 0xf0) == 0x80)
        cls = CLS_COND, width = 4;
    else if (op == 0xeb)
        cls = CLS_NEAR_REL_JMP, width = 1;
    else if (op == 0xe9)
        cls = CLS_NEAR_REL_JMP, width = 4;
    else if (op == 0xe8)
        cls = CLS_NEAR_REL_CALL, width = 4;
    else if (op == 0xc2 || op == 0xc3)
        cls = CLS_NEAR_RET;
    else if (op == 0xff && left > 1 && reg >= 2 && reg <= 5)
        cls = reg == 2 ? CLS_NEAR_IND_CALL : reg == 4 ? CLS_NEAR_IND_JMP : CLS_FAR_BRANCH;
    else if (op == 0xca || op == 0xcb)
        cls = CLS_FAR_BRANCH;
    else if (op == 0xcf)
        cls = CLS_IRET;
    else if (op == 0xcc || op == 0xcd)
        cls = CLS_SOFT_INT;
    else if (op == 0x0f && left > 1 && (next == 0x05 || next == 0x34))
        cls = CLS_SYSCALL;
    else if (op == 0x0f && left > 1 && (next == 0x07 || next == 0x35))
        cls = CLS_SYSRET;
    if (width) {
        if (left < 1 + width)
            return WIRE_NO_BRANCH;
        *target = address + size + (uint64_t)decode_relative(code, size, width);
    }
    return cls;
}

/* Model: price of an instruction in cycles, by opcode alone.  Loads cost their L1 latency
 * spread over four, divisions and locked instructions are dear; nothing knows of caches. */
static inline unsigned decode_cost(const uint8_t *code, size_t size) {
    size_t at = decode_prefixes(code, size), left = size - at;
    uint8_t op = left ? code[at] : 0x90, next = left > 1 ? code[at + 1] : 0;
    for (size_t i = 0; i < at; i++)
        if (code[i] == 0xf0)
            return 18;                               /* LOCK */
    if ((op == 0xf6 || op == 0xf7) && (next >> 3 & 7) >= 6)
        return 24;                                   /* DIV, IDIV */
    if ((op == 0xf6 || op == 0xf7) && (next >> 3 & 7) >= 4)
        return 3;                                    /* MUL, IMUL */
    if (op == 0x0f && (next == 0xaf || next == 0x59 || next == 0x58))
        return 4;                                    /* IMUL; MULSS.., ADDSS.. */
    if (op == 0x0f && (next == 0x5e || next == 0x51))
        return 13;                                   /* DIVSS.., SQRTSS.. */
    if (op == 0x0f && (next == 0x05 || next == 0xa2))
        return 100;                                  /* SYSCALL, CPUID */
    if (op >= 0xd8 && op <= 0xdf)
        return 4;                                    /* x87 */
    if (op == 0xa4 || op == 0xa5 || op == 0xaa || op == 0xab)
        return 4;                                    /* MOVS, STOS */
    return 1;
}

#endif
