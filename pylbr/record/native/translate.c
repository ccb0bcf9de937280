/* From the program's code to a copy that leaves to `dispatch` at its branches.
 *
 * A block begins where a window has arrived.  It continues after conditional branches, which leave
 * it when they are taken, and ends at any other branch, at the page's end, or after
 * BLOCK_INSTRUCTIONS.  Its source is kept with it and compared before each use, so code that has
 * been replaced is translated again.  Code that can be written while it executes gets blocks of
 * one instruction: it may change ahead of itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "emit.h"
#include "x86/decode.h"

#define BLOCK_INSTRUCTIONS 48u
#define BLOCK_ROOM 6144u    /* bytes of a slice that a block may need */
#define REACH 0x7ff00000u   /* of a RIP-relative operand */
#define PAGE 4096u

/* A conditional branch's way out, written after the block. */
struct way { u8 *from; u32 exit; };

struct translation {
    struct lane *lane;
    struct emitter e;
    u64 pc, at;                 /* start of the block; the instruction at hand */
    u32 kind;                   /* of the memory that it lies in */
    struct x86_insn insn;
    struct way ways[BLOCK_INSTRUCTIONS];
    u32 way_count;
    int ended, cut;
};

/* ---- leaving a block ---- */

static u32 new_exit(struct translation *t, enum exit_kind kind, u64 to, u32 cls, enum end end) {
    struct exit *x = &t->lane->exits[t->lane->exit_count];
    *x = (struct exit){.from = t->at, .to = to, .kind = (u8)kind, .cls = (u8)cls, .end = (u8)end};
    return t->lane->exit_count++;
}

/* movl $number, exit; jmp enter */
static void emit_exit(struct translation *t, u32 number) {
    emit(&t->e, 0x05c7, 2);
    emit_slot(&t->e, FACE_SLOT(exit), 4);
    emit(&t->e, number, 4);
    emit_jump(&t->e, t->e.base + FACE_ENTER);
}

static void leave(struct translation *t, enum exit_kind kind, u64 to) {
    emit_exit(t, new_exit(t, kind, to, t->insn.cls, END_FULL));
    t->ended = 1;
}

static void cut(struct translation *t, enum end why) {
    t->lane->failed = why;
    t->cut = 1;
    if (t->at != t->pc) /* else there is no block */
        emit_exit(t, new_exit(t, EXIT_CUT, t->at, LBR_ZERO_CALL, why));
    t->ended = 1;
}

/* ---- one instruction ---- */

static u64 next_address(const struct translation *t) { return t->at + t->insn.length; }

/* The displacement of the RIP-relative operand that was just written, `after` bytes before the
 * end.  0: the operand is out of reach from here. */
static int rebase(struct translation *t, u32 after) {
    u64 target = next_address(t) + (u64)t->insn.disp;
    int64_t distance = (int64_t)(target - emit_address(&t->e));
    if (distance != (int32_t)distance)
        return 0;
    *(int32_t *)(t->e.at - after - 4) = (int32_t)distance;
    return 1;
}

static void copy_instruction(struct translation *t) {
    u8 *start = t->e.at;
    emit_bytes(&t->e, (const void *)t->at, t->insn.length);
    if (t->insn.rip_offset && !rebase(t, t->insn.length - t->insn.rip_offset - 4u)) {
        t->e.at = start;
        cut(t, END_UNMAPPED);
    }
}

static void conditional(struct translation *t) {
    const struct x86_insn *i = &t->insn;
    u64 target = next_address(t) + (u64)i->displacement;
    u32 taken = new_exit(t, EXIT_TAKEN, target, LBR_COND, END_FULL);
    if (i->condition < X86_LOOPNE)
        emit(&t->e, 0x800f | (u32)i->condition << 8, 2);
    else {
        /* LOOP, JRCXZ: to the jump after next */
        if (i->address_size == 4)
            emit(&t->e, 0x67, 1);
        emit(&t->e, i->opcode | 0x02 << 8 | 0x05eb << 16 | (u64)0xe9 << 32, 5);
    }
    t->ways[t->way_count++] = (struct way){t->e.at, taken};
    emit(&t->e, 0, 4);
}

static void emit_ways(struct translation *t) {
    for (u32 i = 0; i < t->way_count; i++) {
        u8 *from = t->ways[i].from;
        *(u32 *)from = (u32)(t->e.at - (from + 4));
        emit_exit(t, t->ways[i].exit);
    }
}

/* mov r/m, %rcx with the operand of an indirect branch */
static int load_target(struct translation *t) {
    const struct x86_insn *i = &t->insn;
    const u8 *source = (const u8 *)t->at;
    u32 rest = i->length - i->modrm_offset - 1u;
    if (i->segment)
        emit(&t->e, i->segment == X86_SEG_FS ? 0x64 : 0x65, 1);
    if (i->address_size == 4)
        emit(&t->e, 0x67, 1);
    emit(&t->e, 0x48 | (i->rex & 3u) | 0x8b00 | (u32)((i->modrm & 0xc7) | 8) << 16, 3);
    emit_bytes(&t->e, source + i->modrm_offset + 1, rest);
    return !i->rip_offset || rebase(t, 0);
}

static void indirect(struct translation *t) {
    struct emitter start = t->e;
    emit(&t->e, 0x0d8948, 3);
    emit_slot(&t->e, FACE_SLOT(scratch), 0);
    if (!load_target(t)) {
        t->e = start;
        cut(t, END_UNMAPPED);
        return;
    }
    emit(&t->e, 0x0d8948, 3);
    emit_slot(&t->e, FACE_SLOT(target), 0);
    emit(&t->e, 0x0d8b48, 3);
    emit_slot(&t->e, FACE_SLOT(scratch), 0);
    if (t->insn.cls == LBR_NEAR_IND_CALL)
        emit_push(&t->e, next_address(t));
    leave(t, EXIT_INDIRECT, 0);
}

static void near_return(struct translation *t) {
    emit(&t->e, 0x058f, 2); /* pop target */
    emit_slot(&t->e, FACE_SLOT(target), 0);
    if (t->insn.opcode == 0xc2) {
        emit(&t->e, 0x24a48d48, 4); /* lea n(%rsp), %rsp */
        emit(&t->e, *(const u16 *)(t->at + t->insn.immediate_offset), 4);
    }
    leave(t, EXIT_INDIRECT, 0);
}

/* Instructions that end a window.  POPF may set the trap flag; MOV to SS delays interrupts. */
static int is_cut(const struct x86_insn *i) {
    const u32 flags = X86_FAR | X86_XBEGIN | X86_XEND | X86_XABORT | X86_UIRET |
                      X86_SHADOW_STACK | X86_UNDEFINED_TRAP;
    int popf = i->encoding == X86_LEGACY && i->map == 0 && i->opcode == 0x9d;
    int mov_ss = i->encoding == X86_LEGACY && i->map == 0 && i->opcode == 0x8e &&
                 (i->modrm >> 3 & 7) == 2;
    return i->flags & flags || popf || mov_ss || (i->cls > LBR_ZERO_CALL && i->cls != X86_NO_BRANCH);
}

static void instruction(struct translation *t) {
    u64 next = next_address(t);
    if (t->insn.flags & X86_SYSTEM_CALL)
        return cut(t, END_SYSCALL);
    if (is_cut(&t->insn))
        return cut(t, END_UNKNOWN);
    switch (t->insn.cls) {
    case X86_NO_BRANCH:
        return copy_instruction(t);
    case LBR_COND:
        return conditional(t);
    case LBR_NEAR_REL_JMP:
        return leave(t, EXIT_TAKEN, next + (u64)t->insn.displacement);
    case LBR_NEAR_REL_CALL:
    case LBR_ZERO_CALL:
        emit_push(&t->e, next);
        return leave(t, EXIT_TAKEN, next + (u64)t->insn.displacement);
    case LBR_NEAR_IND_JMP:
    case LBR_NEAR_IND_CALL:
        return indirect(t);
    case LBR_NEAR_RET:
        return near_return(t);
    default:
        return cut(t, END_UNKNOWN);
    }
}

/* ---- a block ---- */

/* Decode at t->at.  Bytes of the next page are read only if the instruction reaches into it. */
static int decode(struct translation *t) {
    u64 end = (t->at | (PAGE - 1)) + 1;
    const struct range *range = range_at(t->at), *next;
    if (!range || range->kind != t->kind) {
        t->lane->failed = range && range->kind == RANGE_CLOSED ? END_CLOSED : END_UNMAPPED;
        return 0;
    }
    if (end > range->end)
        end = range->end;
    if (x86_decode((const u8 *)t->at, end - t->at, &t->insn))
        return 1;
    t->lane->failed = END_UNKNOWN;
    if (t->insn.refusal != X86_TRUNCATED)
        return 0;
    next = range_at(end);
    if (!next || next->kind == RANGE_CLOSED) {
        t->lane->failed = END_UNMAPPED;
        return 0;
    }
    return x86_decode((const u8 *)t->at, next->end - t->at, &t->insn);
}

static int near_region(const struct lane *lane, u64 pc, u32 *region) {
    (void)lane;
    for (u32 i = 0; i < state.region_count; i++) {
        u64 low = state.regions[i].start, high = low + state.slice * state.lane_count;
        if ((pc < high ? high - pc : pc - low) < REACH && (pc > low ? pc - low : low - pc) < REACH) {
            *region = i;
            return 1;
        }
    }
    return 0;
}

static int has_room(const struct lane *lane, u32 region) {
    return lane->used[region] + BLOCK_ROOM < state.slice && lane->block_count < LANE_BLOCKS &&
           lane->exit_count + BLOCK_INSTRUCTIONS + 2 < LANE_EXITS &&
           lane->origin_count + BLOCK_INSTRUCTIONS < LANE_ORIGINS;
}

static void body(struct translation *t) {
    u32 limit = t->kind == RANGE_PATCHED ? 1 : BLOCK_INSTRUCTIONS, n = 0;
    u8 *code = t->e.at;
    while (!t->ended) {
        if (n && (n == limit || (t->at ^ t->pc) & ~(u64)(PAGE - 1))) {
            emit_exit(t, new_exit(t, EXIT_GO_ON, t->at, LBR_ZERO_CALL, END_FULL));
            break;
        }
        if (!decode(t)) {
            cut(t, t->lane->failed);
            break;
        }
        t->lane->origins[t->lane->origin_count + n++] =
            (struct origin){(u16)(t->at - t->pc), (u16)(t->e.at - code)};
        u64 at = t->at;
        instruction(t);
        if (!t->cut)
            t->at = at + t->insn.length;
    }
}

/* The block at `pc`, or NULL with lane->failed. */
struct block *translate(struct lane *lane, u64 pc) {
    const struct range *range = range_at(pc);
    struct translation t = {.lane = lane, .pc = pc, .at = pc, .kind = range ? range->kind : 0};
    u32 region;
    lane->failed = END_UNMAPPED;
    if (!t.kind || !near_region(lane, pc, &region))
        return NULL;
    if (t.kind == RANGE_CLOSED) {
        lane->failed = END_CLOSED;
        return NULL;
    }
    if (!has_room(lane, region))
        lane_flush(lane);
    u8 *slice = (u8 *)lane_face(lane, region);
    t.e = (struct emitter){slice + lane->used[region], state.regions[region].alias,
                           lane_address(lane, region)};
    u8 *code = t.e.at;
    u32 first = lane->origin_count, exits = lane->exit_count;
    body(&t);
    u64 size = t.at - pc, made;
    if (!size || lane->exit_count == exits) {
        lane->exit_count = exits;
        return NULL;
    }
    emit_ways(&t);
    made = (u64)(t.e.at - code);
    emit_bytes(&t.e, (const void *)pc, size);
    lane->used[region] = (u64)(t.e.at - slice);
    struct block *block = &lane->table[lane->block_count++];
    u32 count = 0;
    while (count < BLOCK_INSTRUCTIONS && lane->origins[first + count].source < size &&
           (!count || lane->origins[first + count].source > lane->origins[first + count - 1].source))
        count++;
    lane->origin_count = first + count;
    *block = (struct block){.pc = pc, .code = code - state.regions[region].alias,
                            .origins = first, .count = (u16)count, .size = (u16)size,
                            .region = (u16)region, .code_size = (u16)made};
    return block;
}

/* Whether the source is still what was translated.  Reads upwards, and nothing of a second page
 * before all of the first is equal: only then would the processor fetch it, too. */
int block_holds(const struct block *block) {
    const u8 *now = (const u8 *)block->pc;
    const u8 *then = block->code + state.regions[block->region].alias + block->code_size;
    u32 i = 0, words = PAGE - (block->pc & (PAGE - 1));
    if (words > block->size)
        words = block->size;
    for (; i + 8 <= words; i += 8)
        if (*(const u64 *)(now + i) != *(const u64 *)(then + i))
            return 0;
    for (; i < block->size; i++)
        if (now[i] != then[i])
            return 0;
    return 1;
}

/* Find or make the block at `pc`; NULL with lane->failed. */
struct block *block_at(struct lane *lane, u64 pc) {
    u32 place = (u32)(pc * 0x9e3779b97f4a7c15u >> 49), flushes = lane->flushes;
    while (lane->index[place]) {
        struct block *block = &lane->table[lane->index[place] - 1];
        if (block->pc == pc) {
            if (block_holds(block))
                return block;
            break;
        }
        place = (place + 1) % LANE_INDEX;
    }
    struct block *block = translate(lane, pc);
    if (!block)
        return NULL;
    if (lane->flushes != flushes)
        place = (u32)(pc * 0x9e3779b97f4a7c15u >> 49);
    lane->index[place] = (u16)(block - lane->table + 1);
    return block;
}

/* Address of the instruction whose copy holds an address; 0 if none does. */
u64 origin_of(struct lane *lane, u32 region, u64 address) {
    for (u32 b = 0; b < lane->block_count; b++) {
        const struct block *block = &lane->table[b];
        u64 offset = address - (u64)block->code;
        if (block->region != region || offset >= block->code_size)
            continue;
        const struct origin *o = &lane->origins[block->origins];
        u32 i = 0;
        while (i + 1 < block->count && o[i + 1].copy <= offset)
            i++;
        return block->pc + o[i].source;
    }
    return 0;
}
