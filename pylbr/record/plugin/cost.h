/* Model: cycles of an instruction in 64-bit mode, by its opcode alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_COST_H
#define PYLBR_COST_H

#include <stddef.h>
#include <stdint.h>

/* Offset of the opcode: after legacy prefixes and REX. */
static inline size_t cost_prefixes(const uint8_t *code, size_t size) {
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

/* Loads cost their L1 latency spread over four; divisions and locked instructions are
 * expensive; caches are not modelled. */
static inline unsigned instruction_cost(const uint8_t *code, size_t size) {
    size_t at = cost_prefixes(code, size), left = size - at;
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
