/* From the program's code to traces.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "full.h"
#include "x86/decode.h"

#define REACH 0x7ff00000u
#define PAGE 4096u
#define TRACE_ROOM 16384u
#define TRACE_INSTRUCTIONS 96u /* after these, no further block begins */
#define TRACE_BLOCKS 24u
#define BLOCK_INSTRUCTIONS 96u
#define FIRST_CODE 64u

struct out { u8 *from; u32 number; };

struct translation {
    u8 *at;                     /* where the next byte is written */
    u64 pc, next;               /* the instruction at hand */
    struct x86_insn insn;
    struct out outs[TRACE_BLOCKS + 2];
    u32 out_count;
    u32 first, region;          /* number of the first block */
    u32 instructions;
    wire_block *block;          /* that is being made; NULL: the next instruction begins one */
    enum stop why;
    int ended;
};

static u64 used[NATIVE_REGIONS];
static u32 origin_count, trace_count;

/* ---- machine code ---- */

static void emit(struct translation *t, u64 code, u32 size) {
    for (u32 i = 0; i < size; i++)
        *t->at++ = (u8)(code >> 8 * i);
}

/* An instruction with an absolute operand: opcode and ModRM, then SIB and the address. */
static void emit_low(struct translation *t, u32 code, u32 size, u32 slot) {
    emit(t, code, size);
    emit(t, 0x25, 1);
    emit(t, full.low + slot, 4);
}

#define SLOT(name) ((u32)offsetof(struct low, name))
#define MOV_RCX_TO 0x0c8948u
#define MOV_TO_RCX 0x0c8b48u
#define MOV_RAX_TO 0x048948u
#define MOV_TO_RAX 0x048b48u

static void emit_push(struct translation *t, u64 address) {
    emit(t, 0x68, 1);
    emit(t, address, 4);
    emit(t, 0x042444c7, 4);
    emit(t, address >> 32, 4);
}

/* movl $number, exit; jmp *dispatch */
static void emit_dispatch(struct translation *t, u32 number) {
    emit_low(t, 0x04c7, 2, SLOT(exit));
    emit(t, number, 4);
    emit_low(t, 0x24ff, 2, SLOT(dispatch));
}

/* RCX is free: log the number.  RCX is 0 after it if the log is full. */
static void emit_log(struct translation *t, u32 number) {
    emit_low(t, MOV_TO_RCX, 3, SLOT(pos));
    emit(t, 0x81c7, 2); /* movl $number, low(%rcx) */
    emit(t, full.low, 4);
    emit(t, number, 4);
    emit(t, 0x04498d48, 4); /* lea 4(%rcx), %rcx */
    emit_low(t, MOV_RCX_TO, 3, SLOT(pos));
}

u32 new_way(u32 first, u32 count, struct exit x) {
    struct full_shared *s = shared();
    u32 number = s->next_exit;
    if (number >= FULL_EXITS)
        return 0;
    ((struct way *)full.exits)[number] = (struct way){first, count};
    tables()->exits[number] = x;
    s->next_exit = number + 1;
    return number;
}

static u32 way(struct translation *t, enum way_kind kind, u64 to, enum stop why) {
    u32 count = shared()->next_block - t->first;
    return new_way(t->first, count, (struct exit){to, 0, (u8)t->region, (u8)kind, (u8)why, 0});
}

/* A way out to known code; a link later goes into its jump. */
static void emit_direct(struct translation *t, u32 number) {
    emit_low(t, MOV_RCX_TO, 3, SLOT(rcx));
    emit_log(t, number);
    emit(t, 0x0de3, 2); /* jrcxz: over the next two */
    emit_low(t, MOV_TO_RCX, 3, SLOT(rcx));
    emit(t, 0xe9, 1);
    tables()->exits[number].jump = (u32)(t->at - (u8 *)full.regions[t->region]);
    emit(t, 8, 4); /* over the next */
    emit_low(t, MOV_TO_RCX, 3, SLOT(rcx));
    emit_dispatch(t, number);
}

/* The target is in its slot. */
static void emit_indirect(struct translation *t, u32 number) {
    u8 *full_jump, *hit;
    emit_low(t, MOV_RCX_TO, 3, SLOT(rcx));
    emit_low(t, MOV_RAX_TO, 3, SLOT(rax));
    emit_low(t, MOV_TO_RAX, 3, SLOT(target));
    emit_log(t, number);
    emit(t, 0x00e3, 2);
    full_jump = t->at;
    emit(t, 0xc8b70f, 3);         /* movzwl %ax, %ecx */
    emit(t, 0xcd0c8b48, 4);       /* mov near(, %rcx, 8), %rcx */
    emit(t, full.near, 4);
    emit(t, 0x010c8d48, 4);       /* lea (%rcx, %rax), %rcx */
    emit(t, 0x00e3, 2);
    hit = t->at;
    full_jump[-1] = (u8)(t->at - full_jump);
    emit_low(t, MOV_TO_RAX, 3, SLOT(rax));
    emit_low(t, MOV_TO_RCX, 3, SLOT(rcx));
    emit_dispatch(t, number);
    hit[-1] = (u8)(t->at - hit);
    emit(t, 0xc8b70f, 3);
    emit(t, 0xcd048b48, 4);       /* mov code(, %rcx, 8), %rax */
    emit(t, full.code, 4);
    emit_low(t, MOV_RAX_TO, 3, SLOT(go));
    emit_low(t, MOV_TO_RAX, 3, SLOT(rax));
    emit_low(t, MOV_TO_RCX, 3, SLOT(rcx));
    emit_low(t, 0x24ff, 2, SLOT(go));
}

/* ---- blocks ---- */

static void begin_block(struct translation *t) {
    struct full_shared *s = shared();
    t->block = &((wire_block *)full.blocks)[s->next_block];
    *t->block = (wire_block){.start = t->pc, .lengths = s->next_length};
}

static void count_instruction(struct translation *t) {
    wire_block *b = t->block;
    b->last = (u16)(t->pc - b->start);
    b->instructions++;
    b->size = (u16)(t->next - b->start);
    ((u8 *)full.lengths)[shared()->next_length++] = t->insn.length;
    t->instructions++;
}

static void end_block(struct translation *t, u32 cls, u64 target) {
    t->block->cls = (u8)(cls == LBR_ZERO_CALL ? LBR_NEAR_REL_CALL : cls);
    t->block->target = target;
    t->block = NULL;
    shared()->next_block++;
}

/* ---- one instruction ---- */

static int rebase(struct translation *t, u32 after) {
    i64 distance = (i64)(t->next + (u64)t->insn.disp - (u64)t->at);
    if (distance != (int32_t)distance)
        return 0;
    *(int32_t *)(t->at - after - 4) = (int32_t)distance;
    return 1;
}

/* The program continues natively at t->pc. */
static void give_up(struct translation *t, enum way_kind kind, enum stop why) {
    if (t->block)
        end_block(t, WIRE_NO_BRANCH, 0);
    t->why = why;
    t->ended = 1;
    emit_dispatch(t, way(t, kind, t->pc, why));
}

static void leave(struct translation *t, u64 to) {
    emit_direct(t, way(t, WAY_DIRECT, to, STOP_NONE));
    t->ended = 1;
}

static int is_long(const struct translation *t) {
    return t->instructions >= TRACE_INSTRUCTIONS ||
           shared()->next_block - t->first >= TRACE_BLOCKS;
}

/* On at a target that is always the same. */
static void follow(struct translation *t, u64 to) {
    if (is_long(t))
        leave(t, to);
    else
        t->pc = to;
}

static void conditional(struct translation *t) {
    const struct x86_insn *i = &t->insn;
    u64 target = t->next + (u64)i->displacement;
    end_block(t, LBR_COND, target);
    u32 taken = way(t, WAY_DIRECT, target, STOP_NONE);
    if (i->condition < X86_LOOPNE)
        emit(t, 0x800f | (u32)i->condition << 8, 2);
    else {
        if (i->address_size == 4)
            emit(t, 0x67, 1);
        emit(t, i->opcode | 0x02 << 8 | 0x05eb << 16 | (u64)0xe9 << 32, 5);
    }
    t->outs[t->out_count++] = (struct out){t->at, taken};
    emit(t, 0, 4);
    follow(t, t->next);
}

static int load_target(struct translation *t) {
    const struct x86_insn *i = &t->insn;
    const u8 *source = (const u8 *)t->pc;
    u32 rest = i->length - i->modrm_offset - 1u;
    if (i->segment)
        emit(t, i->segment == X86_SEG_FS ? 0x64 : 0x65, 1);
    if (i->address_size == 4)
        emit(t, 0x67, 1);
    emit(t, 0x48 | (i->rex & 3u) | 0x8b00 | (u32)((i->modrm & 0xc7) | 8) << 16, 3);
    copy(t->at, source + i->modrm_offset + 1, rest);
    t->at += rest;
    return !i->rip_offset || rebase(t, 0);
}

static void indirect(struct translation *t) {
    u8 *start = t->at;
    emit_low(t, MOV_RCX_TO, 3, SLOT(rcx));
    if (!load_target(t)) {
        t->at = start;
        return give_up(t, WAY_STOP, STOP_FAR);
    }
    emit_low(t, MOV_RCX_TO, 3, SLOT(target));
    emit_low(t, MOV_TO_RCX, 3, SLOT(rcx));
    count_instruction(t);
    if (t->insn.cls == LBR_NEAR_IND_CALL)
        emit_push(t, t->next);
    end_block(t, t->insn.cls, 0);
    emit_indirect(t, way(t, WAY_INDIRECT, 0, STOP_NONE));
    t->ended = 1;
}

static void near_return(struct translation *t) {
    emit_low(t, 0x048f, 2, SLOT(target)); /* pop target */
    if (t->insn.opcode == 0xc2) {
        emit(t, 0x24a48d48, 4);
        emit(t, *(const u16 *)(t->pc + t->insn.immediate_offset), 4);
    }
    end_block(t, LBR_NEAR_RET, 0);
    emit_indirect(t, way(t, WAY_INDIRECT, 0, STOP_NONE));
    t->ended = 1;
}

/* What came before ends in a way of its own: a signal may come between. */
static void system_call_ahead(struct translation *t) {
    if (t->insn.opcode != 0x05 || t->insn.map != 1)
        return give_up(t, WAY_STOP, STOP_UNKNOWN);
    if (t->block)
        end_block(t, WIRE_NO_BRANCH, 0);
    u32 before = way(t, WAY_CALL, t->pc, STOP_NONE);
    emit_dispatch(t, before);
    begin_block(t);
    count_instruction(t);
    u32 number = shared()->next_block;
    end_block(t, LBR_SYSCALL, 0);
    new_way(number, 1, (struct exit){t->pc, 0, (u8)t->region, WAY_CALL, 0, 0}); /* before + 1 */
    t->ended = 1;
}

/* INT3: the program executes it natively, and SIGTRAP follows. */
static void breakpoint(struct translation *t) {
    if (!t->block)
        begin_block(t);
    count_instruction(t);
    end_block(t, LBR_SOFT_INT, 0);
    give_up(t, WAY_FAULT, STOP_NOWHERE);
}

/* POPF may set the trap flag; MOV to SS delays interrupts.  RDSSP does nothing where shadow stacks
 * are off, and pylbr refuses where they are on. */
static int is_refused(const struct x86_insn *i) {
    int rdssp = i->encoding == X86_LEGACY && i->map == 1 && i->opcode == 0x1e;
    const u32 flags = X86_FAR | X86_XBEGIN | X86_XEND | X86_XABORT | X86_UIRET |
                      (rdssp ? 0u : (u32)X86_SHADOW_STACK);
    int popf = i->encoding == X86_LEGACY && i->map == 0 && i->opcode == 0x9d;
    int mov_ss = i->encoding == X86_LEGACY && i->map == 0 && i->opcode == 0x8e &&
                 (i->modrm >> 3 & 7) == 2;
    return i->flags & flags || popf || mov_ss || (i->cls > LBR_ZERO_CALL && i->cls != X86_NO_BRANCH);
}

static void add_origin(struct translation *t, u8 *at) {
    tables()->origins[origin_count++] =
        (struct origin){(u64)at, t->pc, shared()->next_block, t->first};
}

static void copy_instruction(struct translation *t) {
    u8 *start = t->at;
    copy(t->at, (const void *)t->pc, t->insn.length);
    t->at += t->insn.length;
    if (t->insn.rip_offset && !rebase(t, t->insn.length - t->insn.rip_offset - 4u)) {
        t->at = start;
        return give_up(t, WAY_STOP, STOP_FAR);
    }
    count_instruction(t);
    t->pc = t->next;
    if (t->block->instructions == BLOCK_INSTRUCTIONS) {
        end_block(t, WIRE_NO_BRANCH, 0);
        leave(t, t->pc);
    }
}

static void instruction(struct translation *t) {
    u64 next = t->next;
    if (t->insn.cls == LBR_SOFT_INT && t->insn.opcode == 0xcc && t->insn.map == 0)
        return breakpoint(t);
    if (t->insn.flags & X86_SYSTEM_CALL)
        return system_call_ahead(t);
    if (t->insn.flags & X86_UNDEFINED_TRAP)
        return give_up(t, WAY_FAULT, STOP_NOWHERE);
    if (is_refused(&t->insn))
        return give_up(t, WAY_STOP, STOP_UNKNOWN);
    if (!t->block)
        begin_block(t);
    add_origin(t, t->at);
    if (t->insn.cls == X86_NO_BRANCH)
        return copy_instruction(t);
    if (t->insn.cls == LBR_NEAR_IND_JMP || t->insn.cls == LBR_NEAR_IND_CALL)
        return indirect(t);
    count_instruction(t);
    if (t->insn.cls == LBR_COND)
        return conditional(t);
    if (t->insn.cls == LBR_NEAR_RET)
        return near_return(t);
    if (t->insn.cls != LBR_NEAR_REL_JMP)
        emit_push(t, next);
    end_block(t, t->insn.cls, next + (u64)t->insn.displacement);
    follow(t, next + (u64)t->insn.displacement);
}

/* ---- a trace ---- */

/* Why there may be no copy of the code at an address. */
static enum stop refusal(const struct range *range) {
    return !range                         ? STOP_NOWHERE
           : range->kind == RANGE_PATCHED ? STOP_WRITABLE
           : range->kind == RANGE_CLOSED  ? STOP_CLOSED
                                          : STOP_NONE;
}

/* Bytes of the next range are read only if the instruction reaches into it. */
static int decode(struct translation *t) {
    const struct range *range = range_at(t->pc);
    t->why = refusal(range);
    if (t->why)
        return 0;
    u64 end = range->end;
    if (!x86_decode((const u8 *)t->pc, end - t->pc, &t->insn)) {
        t->why = t->insn.refusal == X86_TRUNCATED ? refusal(range_at(end)) : STOP_UNKNOWN;
        if (t->why || !x86_decode((const u8 *)t->pc, end - t->pc + X86_MAX_LENGTH, &t->insn))
            return 0;
    }
    t->next = t->pc + t->insn.length;
    return 1;
}

static int near_region(u64 pc, u32 *region) {
    for (u32 i = 0; i < full.region_count; i++) {
        u64 low = full.regions[i], high = low + full.slice;
        if ((pc < high ? high - pc : pc - low) < REACH && (pc > low ? pc - low : low - pc) < REACH) {
            *region = i;
            return 1;
        }
    }
    return 0;
}

static int has_room(u32 region) {
    struct full_shared *s = shared();
    return s->next_block + 64 < FULL_BLOCKS && s->next_length + 512 < FULL_LENGTHS &&
           s->next_exit + 64 < FULL_EXITS && used[region] + TRACE_ROOM < full.slice &&
           origin_count + 512 < ORIGINS && trace_count < TRACES / 2;
}

static u32 place_of(u64 pc) { return (u32)(pc * 0x9e3779b97f4a7c15u >> 46); }

/* Forget every copy. */
void forget_traces(void) {
    origin_count = trace_count = 0;
    clear(tables()->traces, sizeof tables()->traces / 8);
    clear((void *)full.near, NEAR);
    clear((void *)full.code, NEAR);
    for (u32 i = 0; i < NATIVE_REGIONS; i++)
        used[i] = FIRST_CODE;
}

static u64 translate(u64 pc, u32 region, enum stop *why) {
    struct translation t = {.pc = pc, .first = shared()->next_block, .region = region};
    u8 *start = (u8 *)(full.regions[region] + used[region]);
    t.at = start;
    while (!t.ended) {
        if (decode(&t)) {
            instruction(&t);
        } else if (t.at == start) {
            *why = t.why;
            return 0;
        } else {
            give_up(&t, t.why == STOP_NOWHERE ? WAY_FAULT : WAY_STOP, t.why);
        }
    }
    for (u32 i = 0; i < t.out_count; i++) {
        u8 *from = t.outs[i].from;
        *(u32 *)from = (u32)(t.at - (from + 4));
        emit_direct(&t, t.outs[i].number);
    }
    used[region] = ((u64)(t.at - (u8 *)full.regions[region]) + 15) & ~15ul;
    return (u64)start;
}

u64 trace_at(u64 pc, enum stop *why) {
    u32 place = place_of(pc), region;
    struct trace *traces = tables()->traces;
    for (; traces[place].copy; place = (place + 1) % TRACES)
        if (traces[place].pc == pc)
            return traces[place].copy;
    *why = refusal(range_at(pc));
    if (*why)
        return 0;
    if (!near_region(pc, &region)) {
        *why = STOP_FAR;
        return 0;
    }
    if (!has_room(region)) {
        forget_traces();
        place = place_of(pc);
        if (!has_room(region)) {
            *why = STOP_ROOM;
            return 0;
        }
    }
    u64 copy = translate(pc, region, why);
    if (!copy)
        return 0;
    traces[place] = (struct trace){pc, copy};
    trace_count++;
    return copy;
}

/* The instruction whose copy holds an address; NULL: none does. */
const struct origin *origin_of(u64 address) {
    const struct origin *found = NULL;
    u32 region;
    if (!near_region(address, &region))
        return NULL;
    for (u32 i = 0; i < full.region_count; i++)
        if (address - full.regions[i] < used[i])
            for (u32 n = 0; n < origin_count; n++) {
                const struct origin *o = &tables()->origins[n];
                if (o->copy <= address && (!found || o->copy > found->copy))
                    found = o;
            }
    return found;
}
