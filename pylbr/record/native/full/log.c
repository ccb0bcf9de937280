/* What has happened, on its way to pylbr; and what pylbr has told of executable memory.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "full.h"

struct full_state full __attribute__((visibility("hidden"))) = {.pc = 0};

/* Arguments of system calls that pylbr makes in the program's name. */
__attribute__((used)) u64 scratch[64];

static int stale = 1; /* the table of ranges is not what there is */

#define SOON 50000u      /* nanoseconds: pylbr is to answer */
#define EMPTIER 1000000u /* it is to make room in the ring, which takes it longer */

static void pause(u64 nanoseconds) {
    u64 time[2] = {0, nanoseconds};
    call3(35, (u64)time, 0, 0);
}

/* The log into the ring; waits for room. */
void hand_over(void) {
    struct full_shared *s = shared();
    i64 first = -(i64)FULL_LOG * 4, count = (low()->pos - first) / 4;
    while (s->written + (u64)count - __atomic_load_n(&s->read, __ATOMIC_ACQUIRE) > FULL_RING &&
           !__atomic_load_n(&s->stop, __ATOMIC_RELAXED))
        pause(EMPTIER);
    const u32 *words = (const u32 *)(full.low + (u64)first);
    u32 *ring = (u32 *)full.ring;
    u64 at = s->written % FULL_RING, part = FULL_RING - at;
    if (part > (u64)count)
        part = (u64)count;
    copy(ring + at, words, part * 4);
    copy(ring, words + part, ((u64)count - part) * 4);
    low()->pos = first;
    __atomic_store_n(&s->written, s->written + (u64)count, __ATOMIC_RELEASE);
}

/* Never fills the log: copied code sees that it is full only when it fills it itself. */
void word(u32 value) {
    if (low()->pos >= -4)
        hand_over();
    *(u32 *)(full.low + (u64)low()->pos) = value;
    low()->pos += 4;
}

void event(u32 which, u64 address) {
    for (u32 shift = 0; shift < 3; shift++)
        word(WIRE_PAYLOAD | (u32)(address >> shift * WIRE_PAYLOAD_BITS & (WIRE_PAYLOAD - 1)));
    word(WIRE_EVENT | which);
}

/* ---- ranges ---- */

void forget_ranges(void) { stale = 1; }

static void ask(void) {
    struct full_shared *s = shared();
    u32 asked = s->asked + 1;
    __atomic_store_n(&s->asked, asked, __ATOMIC_RELEASE);
    while (__atomic_load_n(&s->answered, __ATOMIC_ACQUIRE) != asked &&
           !__atomic_load_n(&s->stop, __ATOMIC_RELAXED))
        pause(SOON);
    stale = 0;
}

static const struct range *look(u64 address) {
    struct full_shared *s = shared();
    u64 low = 0, high = s->range_count;
    while (low < high) {
        u64 middle = (low + high) / 2;
        if (address < s->ranges[middle].start)
            high = middle;
        else if (address >= s->ranges[middle].end)
            low = middle + 1;
        else
            return &s->ranges[middle];
    }
    return NULL;
}

/* The range that holds the address, or NULL.  pylbr writes the table only when it is asked. */
const struct range *range_at(u64 address) {
    const struct range *found = stale ? NULL : look(address);
    if (found)
        return found;
    ask();
    return look(address);
}
