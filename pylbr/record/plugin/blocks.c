/* The table of blocks that all processes of a recording share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <string.h>

#include "recorder.h"

/* Blocks of one page of code lie in one page of buckets: few pages of the table are touched. */
static uint32_t first_bucket(const wire_block *block) {
    uint64_t page = (block->start >> 12) * 0x9e3779b97f4a7c15u;
    uint32_t hash = (uint32_t)(page >> 32) * 1024 + (uint32_t)(block->start >> 2 & 1023);
    return hash & (recorder_wire->buckets - 1);
}

static int same_block(const wire_block *a, const wire_block *b) {
    return a->start == b->start && a->target == b->target && a->size == b->size &&
           a->last == b->last && a->instructions == b->instructions && a->cost == b->cost &&
           a->cls == b->cls;
}

void recorder_prefetch(const wire_block *block) {
    __builtin_prefetch(AT(uint32_t, recorder_wire->buckets_at) + first_bucket(block));
}

uint32_t recorder_block(wire_block *block, const uint8_t *lengths) {
    wire_block *blocks = AT(wire_block, recorder_wire->blocks_at);
    uint32_t *buckets = AT(uint32_t, recorder_wire->buckets_at), number = 0;
    uint32_t mask = recorder_wire->buckets - 1, at = first_bucket(block);
    for (uint32_t probes = 0; probes <= mask; probes++, at = (at + 1) & mask) {
        uint32_t known = LOAD(buckets[at]);
        if (!known && !number) {
            uint32_t bytes = __atomic_fetch_add(&recorder_wire->next_length, block->instructions,
                                                __ATOMIC_RELAXED);
            number = __atomic_fetch_add(&recorder_wire->next_block, 1, __ATOMIC_RELAXED);
            if (number >= recorder_wire->blocks ||
                bytes + block->instructions > recorder_wire->length_bytes)
                return 0;
            memcpy(AT(uint8_t, recorder_wire->lengths_at) + bytes, lengths, block->instructions);
            block->lengths = bytes;
            blocks[number] = *block;
        }
        if (!known && __atomic_compare_exchange_n(&buckets[at], &known, number, 0,
                                                  __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return number;
        if (known < recorder_wire->blocks && same_block(&blocks[known], block))
            return known;
    }
    return 0;
}

