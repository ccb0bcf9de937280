/* Stacks on their way to pylbr: a bounded queue with many writers and one reader.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "blob.h"

/* The processor's number, as the vDSO's getcpu finds it without a system call. */
static u32 cpu(void) {
    u32 limit;
    __asm__ volatile("lsl %1, %0" : "=r"(limit) : "r"(0x7b));
    return limit & 0xfff;
}

static struct record *claim(u64 *position) {
    struct shared *s = shared();
    u64 at = __atomic_load_n(&s->head, __ATOMIC_RELAXED);
    for (;;) {
        struct record *r = (struct record *)state.ring + (at & state.ring_mask);
        u64 sequence = __atomic_load_n(&r->sequence, __ATOMIC_ACQUIRE);
        u64 free = at / (state.ring_mask + 1) * 2;
        if (sequence == free) {
            if (__atomic_compare_exchange_n(&s->head, &at, at + 1, 1, __ATOMIC_RELAXED,
                                            __ATOMIC_RELAXED)) {
                *position = at;
                return r;
            }
        } else if ((int64_t)(sequence - free) < 0) {
            return NULL;
        } else {
            at = __atomic_load_n(&s->head, __ATOMIC_RELAXED);
        }
    }
}

/* `kept`: nanoseconds of the tick that stacks still to come stand for. */
void ring_write(const struct lane *lane, u64 pc, enum end why, u64 kept) {
    u64 position;
    struct record *r = claim(&position);
    if (!r) {
        add(&shared()->full);
        return;
    }
    r->tsc = tsc();
    r->ip = pc;
    r->cost = r->tsc - lane->began;
    r->key = lane->key;
    r->cpu = cpu();
    r->weight = lane->thread->weight - kept;
    r->count = (u16)lane->count;
    r->end = (u8)why;
    copy(r->classes, lane->classes, sizeof r->classes);
    copy(r->from, lane->from, lane->count * 8);
    copy(r->to, lane->to, lane->count * 8);
    lane->thread->weight = kept;
    __atomic_store_n(&r->sequence, position / (state.ring_mask + 1) * 2 + 1, __ATOMIC_RELEASE);
}
