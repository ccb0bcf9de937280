/* What the decoder reports of an instruction.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_X86_INSN_H
#define PYLBR_X86_INSN_H

#include <stdint.h>

#define X86_MAX_LENGTH 15u
#define X86_NO_BRANCH 0xffu /* `cls` of an instruction that is no branch */
#define X86_NO_REG 0xffu
#define X86_RIP 0xfeu /* `base` of a RIP-relative operand */

enum x86_refusal {
    X86_OK = 0,
    X86_TRUNCATED, /* `available` bytes are no whole instruction */
    X86_UNDEFINED, /* #UD, or unknown to this decoder (XOP, 3DNow!, EVEX map 4) */
    X86_AMBIGUOUS  /* processors or decoders disagree on it */
};

enum x86_encoding { X86_LEGACY, X86_REX2, X86_VEX, X86_EVEX };

enum x86_segment { X86_SEG_NONE, X86_SEG_FS, X86_SEG_GS }; /* bases of the others are 0 */

enum x86_operand { X86_OPERAND_NONE, X86_OPERAND_REG, X86_OPERAND_MEM };

/* `condition`: the condition code of a Jcc (low four bits of its opcode), or one of these.
 * The counter of LOOP and JRCXZ is RCX, ECX with `address_size` 4. */
enum x86_condition {
    X86_LOOPNE = 0x10, X86_LOOPE = 0x11, X86_LOOP = 0x12, X86_JRCXZ = 0x13,
    X86_UNCONDITIONAL = 0xff
};

enum x86_flag {
    X86_USES_FS = 1 << 0,     /* by prefix, or reads or writes FS or its base */
    X86_USES_GS = 1 << 1,
    X86_SYSTEM_CALL = 1 << 2, /* SYSCALL, SYSENTER, INT n, INT3, INT1 */
    X86_RDTSC = 1 << 3,       /* RDTSC, RDTSCP */
    X86_PKRU = 1 << 4,        /* may read or write PKRU: RDPKRU, WRPKRU, XSAVE*, XRSTOR* */
    X86_STRING = 1 << 5,      /* MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS */
    X86_REP = 1 << 6,         /* one of these with F2 or F3 */
    X86_RSP_OPERAND = 1 << 7, /* RSP, ESP, SP or SPL is an operand that the instruction names;
                                 also ENTER and LEAVE */
    X86_RSP_BASE = 1 << 8,    /* memory operand with base RSP */
    X86_STACK = 1 << 9,       /* pushes or pops */
    X86_X87 = 1 << 10,        /* opcodes D8 to DF, FWAIT */
    X86_VECTOR = 1 << 11,     /* has an MMX, XMM, YMM, ZMM, mask or tile operand */
    X86_FAR = 1 << 12,        /* far JMP, CALL, RET, IRET, ERETU, ERETS */
    X86_XBEGIN = 1 << 13,     /* `displacement` names where aborts go */
    X86_XEND = 1 << 14,
    X86_XABORT = 1 << 15,
    X86_ENDBR = 1 << 16,
    X86_UIRET = 1 << 17,
    X86_LOCK = 1 << 18,
    X86_SHADOW_STACK = 1 << 19, /* reads or writes it or SSP: RDSSP, INCSSP, RSTORSSP, WRSS, ... */
    X86_UNDEFINED_TRAP = 1 << 20, /* UD2: raises #UD */
    X86_RIP_RELATIVE = 1 << 21
};

/* An instruction.  Offsets count from its first byte; 0 where there is none. */
struct x86_insn {
    uint8_t length;        /* 1..15; 0: refused */
    uint8_t refusal;       /* enum x86_refusal */
    uint8_t cls;           /* enum lbr_class as if taken, or X86_NO_BRANCH; XBEGIN is no branch */
    uint8_t condition;     /* enum x86_condition */
    uint8_t encoding;      /* enum x86_encoding */
    uint8_t map;           /* 0 one-byte, 1 0F, 2 0F 38, 3 0F 3A, 5, 6 */
    uint8_t opcode;
    uint8_t opcode_offset; /* of the opcode byte itself, after 0F, 0F 38, VEX, EVEX */
    uint8_t prefix;        /* of the opcode: 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t rex;           /* W, R, X, B as in a REX prefix: bits 3 to 0 */
    uint8_t modrm_offset;
    uint8_t modrm;
    uint8_t immediate_offset; /* of the immediate or branch displacement */
    uint8_t immediate_size;
    uint8_t rip_offset;    /* of the 32-bit displacement of a RIP-relative operand */
    uint8_t disp_offset;   /* of any displacement of the memory operand */
    uint8_t disp_size;     /* 0, 1, 4; 8 of MOV with an absolute address */
    uint8_t operand;       /* enum x86_operand: what ModRM.rm is */
    uint8_t base;          /* register number, X86_RIP or X86_NO_REG; with X86_OPERAND_REG: rm */
    uint8_t index;         /* register number or X86_NO_REG; vector register of a gather */
    uint8_t scale;         /* 1, 2, 4, 8 */
    uint8_t segment;       /* enum x86_segment */
    uint8_t address_size;  /* 8, or 4 with prefix 67 */
    uint32_t flags;        /* enum x86_flag */
    int64_t disp;          /* of the memory operand, sign-extended; EVEX: scaling not applied */
    int64_t displacement;  /* of a direct branch or XBEGIN: target is the next address plus this */
};

#endif
