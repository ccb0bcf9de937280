/* Branch class and flags of an instruction whose bytes have been walked over.
 * Classes: SDM vol. 3, table 20-2.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_X86_DESCRIBE_H
#define PYLBR_X86_DESCRIBE_H

#include <stdint.h>

#include "insn.h"
#include "lbrcore.h"
#include "opcodes.h"

static inline int64_t x86_signed(const uint8_t *bytes, unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    switch (size) {
    case 1: return (int8_t)value;
    case 2: return (int16_t)value;
    case 4: return (int32_t)value;
    default: return (int64_t)value;
    }
}

static inline void x86_direct(const uint8_t *bytes, struct x86_insn *out, unsigned cls) {
    out->cls = (uint8_t)cls;
    out->displacement = x86_signed(bytes + out->immediate_offset, out->immediate_size);
}

/* Branches of the one-byte map. */
static inline void x86_branch_one(const uint8_t *bytes, struct x86_insn *out) {
    unsigned op = out->opcode, reg = out->modrm >> 3 & 7;
    if ((op & 0xf0) == 0x70 || (op & 0xfc) == 0xe0) {
        x86_direct(bytes, out, LBR_COND);
        out->condition = (uint8_t)((op & 0xf0) == 0x70 ? op & 0xf : X86_LOOPNE + (op & 3));
    } else if (op == 0xeb || op == 0xe9)
        x86_direct(bytes, out, LBR_NEAR_REL_JMP);
    else if (op == 0xe8) {
        x86_direct(bytes, out, LBR_NEAR_REL_CALL);
        if (!out->displacement)
            out->cls = LBR_ZERO_CALL;
    } else if (op == 0xc2 || op == 0xc3)
        out->cls = LBR_NEAR_RET;
    else if (op == 0xff && (reg == 2 || reg == 4))
        out->cls = reg == 2 ? LBR_NEAR_IND_CALL : LBR_NEAR_IND_JMP;
    else if (op == 0xca || op == 0xcb || (op == 0xff && (reg == 3 || reg == 5))) {
        out->cls = LBR_FAR_BRANCH;
        out->flags |= X86_FAR;
    } else if (op == 0xcf) {
        out->cls = LBR_IRET;
        out->flags |= X86_FAR;
    } else if (op == 0xcc || op == 0xcd || op == 0xf1) {
        out->cls = op == 0xf1 ? LBR_EXCEPTION : LBR_SOFT_INT;
        out->flags |= X86_SYSTEM_CALL;
    } else if (op == 0xc6 && out->modrm == 0xf8) {
        out->cls = LBR_TSX_ABORT;
        out->flags |= X86_XABORT;
    } else if (op == 0xc7 && out->modrm == 0xf8) {
        x86_direct(bytes, out, X86_NO_BRANCH);
        out->flags |= X86_XBEGIN;
    }
}

/* Branches of map 0F. */
static inline void x86_branch_0f(const uint8_t *bytes, struct x86_insn *out) {
    unsigned op = out->opcode;
    if ((op & 0xf0) == 0x80) {
        x86_direct(bytes, out, LBR_COND);
        out->condition = op & 0xf;
    } else if (op == 0x05 || op == 0x34) {
        out->cls = LBR_SYSCALL;
        out->flags |= X86_SYSTEM_CALL;
    } else if (op == 0x07 || op == 0x35)
        out->cls = LBR_SYSRET;
    else if (op == 0xaa)
        out->cls = LBR_FAR_BRANCH; /* RSM */
    else if (op == 0x01 && out->modrm == 0xec && out->prefix == 2) {
        out->cls = LBR_IRET;
        out->flags |= X86_UIRET;
    } else if (op == 0x01 && out->modrm == 0xca && out->prefix >= 2) {
        out->cls = LBR_IRET; /* ERETU, ERETS; choices.FRED_IS_OTHER_BRANCH */
        out->flags |= X86_FAR;
    }
}

static inline uint32_t x86_flags_one(const struct x86_insn *out) {
    unsigned op = out->opcode, reg = out->modrm >> 3 & 7;
    uint32_t flags = 0;
    if ((op >= 0x6c && op <= 0x6f) || (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf))
        flags |= X86_STRING | (out->prefix >= 2 ? X86_REP : 0);
    if ((op & 0xf0) == 0x50 || op == 0x68 || op == 0x6a || op == 0x8f || op == 0x9c ||
        op == 0x9d || op == 0xe8 || (op & 0xfe) == 0xc2 || op == 0xc8 || op == 0xc9 ||
        (op == 0xff && (reg == 2 || reg == 6)))
        flags |= X86_STACK;
    if (op == 0xc8 || op == 0xc9)
        flags |= X86_RSP_OPERAND; /* ENTER, LEAVE */
    if ((op & 0xf8) == 0xd8 || op == 0x9b)
        flags |= X86_X87;
    if (op == 0x8c || op == 0x8e)
        flags |= reg == 4 ? X86_USES_FS : reg == 5 ? X86_USES_GS : 0;
    return flags;
}

static inline uint32_t x86_flags_0f01(const struct x86_insn *out) {
    switch (out->modrm) {
    case 0xd5: return X86_XEND;
    case 0xee: case 0xef: return out->prefix ? 0 : X86_PKRU;
    case 0xf8: return X86_USES_GS;                     /* SWAPGS */
    case 0xf9: return X86_RDTSC;
    case 0xe8: case 0xea: return out->prefix == 2 ? X86_SHADOW_STACK : 0;
    default: break;
    }
    return out->prefix == 2 && out->operand == X86_OPERAND_MEM && (out->modrm >> 3 & 7) == 5
               ? X86_SHADOW_STACK : 0;                 /* RSTORSSP */
}

static inline uint32_t x86_flags_0fae(const struct x86_insn *out) {
    unsigned reg = out->modrm >> 3 & 7, memory = out->operand == X86_OPERAND_MEM;
    if (memory && !out->prefix)
        return reg == 4 || reg == 5 || reg == 6 ? X86_PKRU : 0; /* XSAVE, XRSTOR, XSAVEOPT */
    if (out->prefix == 2 && !memory)
        return reg == 0 || reg == 2   ? X86_USES_FS             /* RDFSBASE, WRFSBASE */
               : reg == 1 || reg == 3 ? X86_USES_GS
               : reg == 5             ? X86_SHADOW_STACK : 0;   /* INCSSP */
    return out->prefix == 2 && reg == 6 ? X86_SHADOW_STACK : 0; /* CLRSSBSY */
}

static inline uint32_t x86_flags_0f(const struct x86_insn *out) {
    unsigned reg = out->modrm >> 3 & 7;
    switch (out->opcode) {
    case 0x01: return x86_flags_0f01(out);
    case 0x0b: return X86_UNDEFINED_TRAP;
    case 0x1e:
        if (out->prefix != 2 || out->operand != X86_OPERAND_REG)
            return 0;
        return out->modrm == 0xfa || out->modrm == 0xfb ? X86_ENDBR
               : reg == 1                               ? X86_SHADOW_STACK : 0; /* RDSSP */
    case 0x31: return X86_RDTSC;
    case 0xa0: case 0xa1: return X86_USES_FS | X86_STACK;
    case 0xa8: case 0xa9: return X86_USES_GS | X86_STACK;
    case 0xb4: return X86_USES_FS;
    case 0xb5: return X86_USES_GS;
    case 0xae: return x86_flags_0fae(out);
    case 0xc7: /* XRSTORS, XSAVEC, XSAVES */
        return out->operand == X86_OPERAND_MEM && reg >= 3 && reg <= 5 ? X86_PKRU : 0;
    default: return 0;
    }
}

/* RSP as an operand that the instruction names.  In byte instructions without REX the number 4
 * is AH; to take it for SPL errs on the safe side. */
static inline uint32_t x86_flags_rsp(const struct x86_insn *out, uint32_t bits) {
    int reg = (bits & X86_FORM_REG_GPR) && (out->modrm >> 3 & 7) == 4 && !(out->rex & 4);
    int rm = (bits & X86_FORM_RM_GPR) && out->operand == X86_OPERAND_REG && out->base == 4;
    int low = (bits & X86_FORM_OPCODE_GPR) && (out->opcode & 7) == 4 && !(out->rex & 1);
    return reg || rm || low ? X86_RSP_OPERAND : 0;
}

static inline void x86_describe(const uint8_t *bytes, struct x86_insn *out, uint32_t bits) {
    uint32_t flags = x86_flags_rsp(out, bits);
    if (bits & X86_FORM_VECTOR)
        flags |= X86_VECTOR;
    if (out->segment)
        flags |= out->segment == X86_SEG_FS ? X86_USES_FS : X86_USES_GS;
    if (out->operand == X86_OPERAND_MEM && out->base == 4)
        flags |= X86_RSP_BASE;
    if (out->encoding == X86_LEGACY && out->map == 0) {
        x86_branch_one(bytes, out);
        flags |= x86_flags_one(out);
    } else if (out->encoding == X86_LEGACY && out->map == 1) {
        x86_branch_0f(bytes, out);
        flags |= x86_flags_0f(out);
    } else if (out->encoding == X86_LEGACY && out->map == 2 && out->prefix < 2 &&
               out->opcode == 0xf5 + !out->prefix)
        flags |= X86_SHADOW_STACK; /* WRSS, WRUSS */
    out->flags |= flags;
}

#endif
