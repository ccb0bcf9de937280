/* Lanes: taken by a tick, given back when its window ends.
 *
 * A lane's translations stay for its next user.  They are void in the child of a fork, since
 * another thread may have been in the middle of one, and when the executable memory has changed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "blob.h"

static struct lane *lane(u32 number) {
    return (struct lane *)(state.lanes + (u64)number * sizeof(struct lane));
}

static u64 slice_at(u32 number, u32 region) {
    return state.regions[region].start + (u64)number * state.slice;
}

struct face *lane_face(const struct lane *lane, u32 region) {
    return (struct face *)(slice_at(lane->number, region) + (u64)state.regions[region].alias);
}

struct lane *lane_holding(u64 address, u32 *region) {
    for (u32 i = 0; i < state.region_count; i++) {
        u64 offset = address - state.regions[i].start;
        if (offset < state.slice * state.lane_count) {
            *region = i;
            return lane((u32)(offset / state.slice));
        }
    }
    return NULL;
}

/* mov and jmp through a slot of the face, which lies `at` - slot before. */
static u8 *emit(u8 *p, u32 opcode, u32 size, u64 at, u32 slot) {
    for (u32 i = 0; i < size; i++)
        *p++ = (u8)(opcode >> 8 * i);
    *(u32 *)p = slot - (u32)(at + size + 4);
    return p + 4;
}

static void build_face(struct lane *lane, u32 region) {
    u64 base = slice_at(lane->number, region);
    struct face *face = lane_face(lane, region);
    u8 *thunks = (u8 *)face;
    face->stack = (u64)(&lane->regs + 1);
    face->self = (u64)face;
    face->leave = base + FACE_LEAVE;
    face->dispatch = (u64)dispatch_entry;
    /* mov %rsp, rsp; mov stack, %rsp; push self; push leave; jmp *dispatch */
    u8 *p = thunks + FACE_ENTER;
    p = emit(p, 0x258948, 3, (u64)(p - thunks), offsetof(struct face, rsp));
    p = emit(p, 0x258b48, 3, (u64)(p - thunks), offsetof(struct face, stack));
    p = emit(p, 0x35ff, 2, (u64)(p - thunks), offsetof(struct face, self));
    p = emit(p, 0x35ff, 2, (u64)(p - thunks), offsetof(struct face, leave));
    emit(p, 0x25ff, 2, (u64)(p - thunks), offsetof(struct face, dispatch));
    /* mov rsp, %rsp; jmp *go */
    p = thunks + FACE_LEAVE;
    p = emit(p, 0x258b48, 3, (u64)(p - thunks), offsetof(struct face, rsp));
    emit(p, 0x25ff, 2, (u64)(p - thunks), offsetof(struct face, go));
    lane->used[region] = FACE_CODE;
}

u64 lane_address(const struct lane *lane, u32 region) { return slice_at(lane->number, region); }

/* Forget every translation. */
void lane_flush(struct lane *lane) {
    u64 *index = (u64 *)lane->index;
    lane->flushes++;
    lane->block_count = lane->exit_count = lane->origin_count = 0;
    for (u32 i = 0; i < sizeof lane->index / 8; i++)
        index[i] = 0;
    for (u32 i = 0; i < state.region_count; i++)
        build_face(lane, i);
}

static u64 epoch(void) {
    struct fork_page *page = fork_page();
    u64 now = __atomic_load_n(&page->epoch, __ATOMIC_ACQUIRE), fresh = tsc() | 1;
    if (now)
        return now;
    return __atomic_compare_exchange_n(&page->epoch, &now, fresh, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE) ? fresh : now;
}

struct lane *lane_take(void) {
    u64 now = epoch();
    u64 generation = __atomic_load_n(&shared()->generation, __ATOMIC_ACQUIRE);
    for (u32 i = 0; i < state.lane_count; i++) {
        u32 *busy = &fork_page()->busy[i];
        if (__atomic_load_n(busy, __ATOMIC_RELAXED) ||
            __atomic_exchange_n(busy, 1, __ATOMIC_ACQUIRE))
            continue;
        struct lane *taken = lane(i);
        taken->number = i;
        if (taken->epoch != now || taken->generation != generation) {
            taken->epoch = now;
            taken->generation = generation;
            lane_flush(taken);
        }
        return taken;
    }
    return NULL;
}

void lane_release(struct lane *lane) {
    __atomic_store_n(&fork_page()->busy[lane->number], 0, __ATOMIC_RELEASE);
}
