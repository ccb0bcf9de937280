/* The private state of a process, and the layout that pylbr reads.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "blob.h"

struct state state __attribute__((visibility("hidden"))) = {.lane_count = 0};

/* Arguments of system calls that pylbr makes in the program's name. */
__attribute__((used)) u64 scratch[64];

#define FIELD(type, name) offsetof(struct type, name), sizeof(((struct type *)0)->name)

/* Pairs of offset and size, in the order of the names in layout.py. */
__attribute__((used)) const u32 layout[] = {
    sizeof(struct record), FIELD(record, sequence), FIELD(record, tsc), FIELD(record, ip),
    FIELD(record, cost), FIELD(record, key), FIELD(record, cpu), FIELD(record, weight),
    FIELD(record, count), FIELD(record, end), FIELD(record, classes), FIELD(record, from),
    FIELD(record, to),
    sizeof(struct range), FIELD(range, start), FIELD(range, end), FIELD(range, kind),
    sizeof(struct shared), FIELD(shared, stopped), FIELD(shared, depth), FIELD(shared, accept),
    FIELD(shared, blocks_max), FIELD(shared, cycles_max), FIELD(shared, rest),
    FIELD(shared, tick_cost), FIELD(shared, burst), FIELD(shared, gap), FIELD(shared, period),
    FIELD(shared, head), FIELD(shared, full), FIELD(shared, ticks), FIELD(shared, left_out),
    FIELD(shared, skipped), FIELD(shared, ended), FIELD(shared, generation),
    FIELD(shared, version), FIELD(shared, range_count), FIELD(shared, ranges),
    sizeof(struct region), FIELD(region, start), FIELD(region, alias),
    sizeof(struct slot), FIELD(slot, handler), FIELD(slot, flags), FIELD(slot, restorer),
    FIELD(slot, mask), FIELD(slot, number), FIELD(slot, ready),
    sizeof(struct state), FIELD(state, shared), FIELD(state, ring), FIELD(state, ring_mask),
    FIELD(state, threads), FIELD(state, thread_count), FIELD(state, thread_size),
    FIELD(state, lanes), FIELD(state, lane_count), FIELD(state, pkeys), FIELD(state, fork_page),
    FIELD(state, region_count), FIELD(state, slice), FIELD(state, regions),
    FIELD(state, code_start), FIELD(state, code_end), FIELD(state, slot_count), FIELD(state, slots),
    sizeof(struct lane), offsetof(struct thread, fpstate), ALTERNATE_STACK,
};
