/* Decoder of x86-64 instructions in 64-bit mode: length, branch class, and what a translator
 * needs to move an instruction (SDM vol. 2, chapter 2 and the opcode maps).
 *
 * It never guesses.  What is undefined, truncated, or decoded differently by processors or by
 * other decoders has length 0 and a reason (enum x86_refusal).  Freestanding C11: no libc, no
 * allocation, no state.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_X86_DECODE_H
#define PYLBR_X86_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "describe.h"
#include "insn.h"
#include "opcodes.h"

/* The walk over the bytes; private to this file. */
struct x86_walk {
    const uint8_t *bytes;
    size_t end; /* no byte at or after this may be read */
    size_t at;
    uint8_t opsize, rep, lock; /* prefixes 66; F2 or F3; F0 */
    uint8_t wl, vvvv, mask, zeroing, broadcast, high; /* VEX, EVEX; high: R' of EVEX */
    uint8_t gather;            /* the index is a vector register */
};

static inline int x86_refuse(struct x86_insn *out, enum x86_refusal why) {
    out->length = 0;
    out->refusal = (uint8_t)why;
    return 0;
}

/* `more` bytes follow.  Beyond `available` the instruction is truncated, beyond 15 it is #GP. */
static inline int x86_have(const struct x86_walk *w, size_t more, struct x86_insn *out) {
    if (w->at + more <= w->end)
        return 1;
    return x86_refuse(out, w->end == X86_MAX_LENGTH ? X86_UNDEFINED : X86_TRUNCATED);
}

static inline int x86_is_segment(uint8_t byte) {
    return byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e;
}

static inline int x86_is_prefix(uint8_t byte) {
    return byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 ||
           byte == 0x64 || byte == 0x65 || x86_is_segment(byte) || (byte & 0xf0) == 0x40;
}

/* Legacy prefixes, then REX.  Ambiguous: F2 with F3; FS or GS with another segment; REX before
 * a prefix, which processors ignore and decoders treat differently. */
static inline int x86_prefixes(struct x86_walk *w, struct x86_insn *out) {
    int other = 0;
    for (;; w->at++) {
        if (!x86_have(w, 1, out))
            return 0;
        uint8_t byte = w->bytes[w->at];
        if ((byte & 0xf0) == 0x40 || !x86_is_prefix(byte))
            break;
        uint8_t segment = byte == 0x64 ? X86_SEG_FS : byte == 0x65 ? X86_SEG_GS : X86_SEG_NONE;
        if (((byte == 0xf2 || byte == 0xf3) && w->rep && w->rep != byte) ||
            (segment && out->segment && out->segment != segment))
            return x86_refuse(out, X86_AMBIGUOUS);
        if (segment)
            out->segment = segment;
        else if (byte == 0xf2 || byte == 0xf3)
            w->rep = byte;
        else if (byte == 0x66)
            w->opsize = 1;
        else if (byte == 0x67)
            out->address_size = 4;
        else if (byte == 0xf0)
            w->lock = 1;
        else
            other = 1;
    }
    if (other && out->segment)
        return x86_refuse(out, X86_AMBIGUOUS);
    if ((w->bytes[w->at] & 0xf0) == 0x40) {
        out->rex = w->bytes[w->at++];
        if (!x86_have(w, 1, out))
            return 0;
        if (x86_is_prefix(w->bytes[w->at]))
            return x86_refuse(out, X86_AMBIGUOUS);
    }
    return 1;
}

/* Each of the next three reads up to the opcode and returns its cell; 0: refused. */
static inline const uint8_t *x86_legacy(struct x86_walk *w, struct x86_insn *out) {
    uint8_t byte = w->bytes[w->at++];
    for (; out->map == 0 && byte == 0x0f; byte = w->bytes[w->at++]) {
        out->map = 1;
        if (!x86_have(w, 1, out))
            return 0;
    }
    if (out->map == 1 && (byte == 0x38 || byte == 0x3a)) {
        out->map = byte == 0x38 ? 2 : 3;
        if (!x86_have(w, 1, out))
            return 0;
        byte = w->bytes[w->at++];
    }
    out->opcode = byte;
    out->prefix = w->rep == 0xf3 ? 2 : w->rep == 0xf2 ? 3 : w->opsize;
    return x86_legacy_cells[x86_legacy_opcodes[out->map][out->prefix][byte]];
}

static inline const uint8_t *x86_vex(struct x86_walk *w, struct x86_insn *out) {
    unsigned three = w->bytes[w->at] == 0xc4;
    if (!x86_have(w, 3 + three, out))
        return 0;
    const uint8_t *b = w->bytes + w->at + 1;
    uint8_t last = b[three];
    unsigned map = three ? b[0] & 0x1f : 1, rxb = ~b[0] >> 5 & 7;
    out->rex = (uint8_t)(three ? rxb | (last & 0x80) >> 4 : rxb & 4);
    w->vvvv = ~last >> 3 & 0xf;
    w->wl = (uint8_t)((out->rex & 8) >> 1 | (last >> 2 & 1));
    out->encoding = X86_VEX;
    out->map = (uint8_t)map;
    out->prefix = last & 3;
    out->opcode = b[three + 1];
    w->at += 3 + three;
    if (map < 1 || map > 3)
        return 0;
    return x86_vex_cells[x86_vex_opcodes[map - 1][out->prefix][out->opcode]];
}

static inline const uint8_t *x86_evex(struct x86_walk *w, struct x86_insn *out) {
    static const uint8_t place[8] = {0, 1, 2, 3, 0, 4, 5, 0};
    if (!x86_have(w, 5, out))
        return 0;
    const uint8_t *b = w->bytes + w->at + 1;
    out->rex = (uint8_t)((~b[0] >> 5 & 7) | (b[1] & 0x80) >> 4);
    w->high = !(b[0] & 0x10);
    w->vvvv = (uint8_t)((~b[1] >> 3 & 0xf) | (b[2] & 8 ? 0 : 0x10));
    w->wl = (uint8_t)((out->rex & 8) >> 1 | (b[2] >> 5 & 3));
    w->zeroing = b[2] >> 7;
    w->broadcast = b[2] >> 4 & 1;
    w->mask = b[2] & 7;
    out->encoding = X86_EVEX;
    out->map = b[0] & 7;
    out->prefix = b[1] & 3;
    out->opcode = b[3];
    w->at += 5;
    if ((b[0] & 8) || !(b[1] & 4) || !place[out->map])
        return 0; /* the first two: APX */
    return x86_evex_cells[x86_evex_opcodes[place[out->map] - 1][out->prefix][out->opcode]];
}

static inline const struct x86_form *x86_form_of(const struct x86_insn *out, const uint8_t *cell,
                                                 unsigned column) {
    if (out->encoding == X86_LEGACY)
        return &x86_legacy_forms[cell[column]];
    return out->encoding == X86_VEX ? &x86_vex_forms[cell[column]]
                                    : &x86_evex_forms[cell[column]];
}

/* The fields of VEX and EVEX hold values that the form allows. */
static inline int x86_fields_allowed(const struct x86_walk *w, const struct x86_insn *out,
                                     uint32_t bits, uint8_t wl) {
    int memory = out->operand == X86_OPERAND_MEM;
    /* With a register, b makes L'L the rounding mode. */
    int rounds = w->broadcast && !memory && (bits & X86_FORM_ROUND);
    if (!(rounds ? (wl & (w->wl & 4 ? 0xf0 : 0x0f)) : wl >> w->wl & 1))
        return 0;
    if (w->broadcast && !(bits & (memory ? X86_FORM_BROADCAST : X86_FORM_ROUND)))
        return 0;
    if ((w->mask && !(bits & X86_FORM_MASK)) || (!w->mask && (bits & X86_FORM_MASK_NEEDED)) ||
        (w->zeroing && (!w->mask || !(bits & X86_FORM_ZEROING))))
        return 0;
    if (((bits & X86_FORM_REG_LOW) && ((out->rex & 4) || w->high)) ||
        ((bits & X86_FORM_RM_LOW) && (out->rex & 1)) || ((bits & X86_FORM_VVVV_LOW) && w->vvvv > 7))
        return 0;
    if (!(bits & X86_FORM_VVVV) && (bits & X86_FORM_GATHER))
        return (w->vvvv & 0xf) == 0; /* of EVEX, V' extends the index */
    return (bits & X86_FORM_VVVV) || !w->vvvv;
}

/* ModRM, SIB and displacement of a memory operand. */
static inline int x86_memory(struct x86_walk *w, struct x86_insn *out) {
    unsigned mod = out->modrm >> 6, rm = out->modrm & 7, base = rm;
    out->operand = X86_OPERAND_MEM;
    if (rm == 4) {
        if (!x86_have(w, 1, out))
            return 0;
        uint8_t sib = w->bytes[w->at++];
        unsigned index = (sib >> 3 & 7) | (out->rex & 2) << 2;
        base = sib & 7;
        out->scale = (uint8_t)(1 << (sib >> 6));
        out->index = (uint8_t)(index == 4 && !w->gather ? X86_NO_REG
                               : w->gather ? index | (w->vvvv & 0x10) : index);
    }
    out->base = (uint8_t)(base | (out->rex & 1) << 3);
    out->disp_size = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    if (mod == 0 && base == 5) {
        out->disp_size = 4;
        out->base = rm == 4 ? X86_NO_REG : X86_RIP;
    }
    if (!out->disp_size)
        return 1;
    if (!x86_have(w, out->disp_size, out))
        return 0;
    out->disp_offset = (uint8_t)w->at;
    out->disp = x86_signed(w->bytes + w->at, out->disp_size);
    w->at += out->disp_size;
    if (out->base == X86_RIP) {
        out->rip_offset = out->disp_offset;
        out->flags |= X86_RIP_RELATIVE;
        if (out->address_size == 4)
            return x86_refuse(out, X86_AMBIGUOUS);
    }
    return 1;
}

static inline int x86_immediate(struct x86_walk *w, struct x86_insn *out, unsigned kind) {
    static const uint8_t sizes[] = {0, 1, 2, 3, 4, 4, 8};
    unsigned size = sizes[kind], wide = out->rex & 8;
    if (kind == X86_IMM_V && wide)
        size = 8;
    else if ((kind == X86_IMM_Z || kind == X86_IMM_V) && w->opsize && !wide)
        size = 2;
    else if (kind == X86_IMM_MOFFS) {
        size = out->address_size;
        out->operand = X86_OPERAND_MEM;
        out->disp_size = (uint8_t)size;
    }
    if (!size)
        return 1;
    if (!x86_have(w, size, out))
        return 0;
    if (kind == X86_IMM_MOFFS) {
        out->disp_offset = (uint8_t)w->at;
        out->disp = size == 8 ? x86_signed(w->bytes + w->at, 8)
                              : (int64_t)(uint32_t)x86_signed(w->bytes + w->at, 4);
    } else {
        out->immediate_offset = (uint8_t)w->at;
        out->immediate_size = (uint8_t)size;
    }
    w->at += size;
    return 1;
}

/* MOV and PUSH of segment and control registers that do not exist. */
static inline int x86_no_register(const struct x86_insn *out) {
    unsigned reg = out->modrm >> 3 & 7;
    if (out->encoding != X86_LEGACY)
        return 0;
    if (out->map == 0)
        return (out->opcode == 0x8c || out->opcode == 0x8e) &&
               (reg > 5 || (out->opcode == 0x8e && reg == 1));
    unsigned number = reg | (out->rex & 4) << 1, control = (out->opcode & 0xfd) == 0x20;
    return out->map == 1 && ((control && !(0x11d >> number & 1)) ||
                             ((out->opcode & 0xfd) == 0x21 && number > 7));
}

/* With 66 Intel's processors ignore the prefix of a near branch, AMD's make RIP 16 bits and the
 * displacement two bytes.  REX.W overrides 66; where linkers pad the call of __tls_get_addr with
 * both, every decoder agrees. */
static inline int x86_ambiguous_branch(const struct x86_walk *w, const struct x86_insn *out) {
    int near = out->cls <= LBR_NEAR_RET || out->cls == LBR_ZERO_CALL || (out->flags & X86_XBEGIN);
    int call = out->cls == LBR_NEAR_REL_CALL || out->cls == LBR_NEAR_IND_CALL;
    return w->opsize && near && !(call && (out->rex & 8));
}

/* Decode the instruction at `bytes`, of which `available` may be read.  Returns its length, 0
 * if refused; `out` is filled in either case, its `refusal` is the reason. */
static inline int x86_decode(const uint8_t *bytes, size_t available, struct x86_insn *out) {
    struct x86_walk w = {.bytes = bytes, .end = X86_MAX_LENGTH};
    if (available < w.end)
        w.end = available;
    *out = (struct x86_insn){.cls = X86_NO_BRANCH, .condition = X86_UNCONDITIONAL, .scale = 1,
                             .base = X86_NO_REG, .index = X86_NO_REG, .address_size = 8};
    if (!x86_prefixes(&w, out))
        return 0;
    uint8_t first = bytes[w.at];
    int vector = first == 0xc4 || first == 0xc5 || first == 0x62;
    if (vector && (out->rex || w.opsize || w.rep || w.lock))
        return x86_refuse(out, X86_UNDEFINED);
    const uint8_t *cell = first == 0x62 ? x86_evex(&w, out)
                          : vector      ? x86_vex(&w, out) : x86_legacy(&w, out);
    if (!cell)
        return x86_refuse(out, out->refusal ? (enum x86_refusal)out->refusal : X86_UNDEFINED);
    out->opcode_offset = (uint8_t)(w.at - 1);
    const struct x86_form *form = x86_form_of(out, cell, 0);
    if (form->bits & X86_FORM_MODRM) {
        if (!x86_have(&w, 1, out))
            return 0;
        out->modrm_offset = (uint8_t)w.at;
        out->modrm = bytes[w.at++];
        unsigned reg = out->modrm >> 3 & 7, rm = out->modrm & 7, direct = out->modrm >= 0xc0;
        form = x86_form_of(out, cell, reg + 8 * direct);
        if (direct && !(form->rm >> rm & 1))
            return x86_refuse(out, X86_UNDEFINED);
        w.gather = !!(form->bits & X86_FORM_GATHER);
        if (direct) {
            out->operand = X86_OPERAND_REG;
            out->base = (uint8_t)(rm | (out->rex & 1) << 3);
            if (out->encoding == X86_EVEX && !(form->bits & X86_FORM_RM_GPR))
                out->base |= (uint8_t)((out->rex & 2) << 3);
        } else if ((form->bits & X86_FORM_SIB) && rm != 4)
            return x86_refuse(out, X86_UNDEFINED);
        else if ((form->bits & X86_FORM_VALID) && !x86_memory(&w, out))
            return 0;
    }
    int lockable = (form->bits & X86_FORM_LOCK) && out->operand == X86_OPERAND_MEM;
    if (!(form->bits & X86_FORM_VALID) || (w.lock && !lockable))
        return x86_refuse(out, X86_UNDEFINED);
    if (vector ? !x86_fields_allowed(&w, out, form->bits, form->wl) : x86_no_register(out))
        return x86_refuse(out, X86_UNDEFINED);
    if (!x86_immediate(&w, out, form->bits & 0xf))
        return 0;
    if (w.lock)
        out->flags |= X86_LOCK;
    x86_describe(bytes, out, form->bits);
    if (x86_ambiguous_branch(&w, out))
        return x86_refuse(out, X86_AMBIGUOUS);
    out->length = (uint8_t)w.at;
    return (int)w.at;
}

#endif
