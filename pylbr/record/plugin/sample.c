/* Sampled mode: counts what the blocks did, and hands over a window where a period ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include "lbrcore.h"
#include "recorder.h"

static const wire_block *block_at(uint32_t number) {
    return AT(wire_block, recorder_wire->blocks_at) + number;
}

static int of_wanted_half(const wire_block *block) {
    uint32_t halves = recorder_wire->halves;
    return !halves || halves >> (block->start >> 63) & 1;
}

static int branch_taken(const wire_block *block, uint32_t next_word) {
    if (block->cls == WIRE_NO_BRANCH)
        return 0;
    if (block->cls != LBR_COND || next_word >= WIRE_PAYLOAD)
        return 1;
    return block_at(next_word)->start != block->start + block->size;
}

/* Hands over the words before `at`, enough of them for `depth` accepted branches. */
static void take_sample(recorder_cpu *cpu, const uint32_t *at, uint64_t period) {
    const wire_header *wire = recorder_wire;
    uint32_t window[WIRE_WINDOW_WORDS], n = 0, found = 0, next = at[-1];
    uint32_t available = (uint32_t)(at - cpu->ring);
    /* What follows `pos` is the oldest part of the ring, unless the ring is new. */
    if (cpu->wrapped)
        available += (uint32_t)(cpu->ring + wire->ring_words - cpu->pos);
    const uint32_t *word = at;
    while (n < available && n < WIRE_WINDOW_WORDS && found <= wire->depth) {
        if (word == cpu->ring)
            word = cpu->ring + wire->ring_words;
        uint32_t w = *--word;
        window[WIRE_WINDOW_WORDS - ++n] = w;
        if (w < WIRE_PAYLOAD && n > 1) {
            const wire_block *block = block_at(w);
            found += (wire->accept >> (block->cls & 31) & 1) && of_wanted_half(block) &&
                     branch_taken(block, next);
        }
        next = w;
    }
    recorder_message(cpu, WIRE_SAMPLE, &period, sizeof period, window + WIRE_WINDOW_WORDS - n, n * 4);
}

/* Instructions of the block that retired before `next` ran: a `rep` that continues enters its
 * own block again and has not retired, nor has what QEMU is about to repeat. */
static uint32_t retired(const wire_block *block, uint32_t next) {
    uint32_t n = 0, all = block->instructions;
    if (next == 0 || next >= WIRE_PAYLOAD)
        return all;
    uint64_t into = block_at(next)->start - block->start, at = 0;
    int repeated = into == 0 && block_at(next)->instructions == 1 && block_at(next) != block;
    int early = block->cls == WIRE_NO_BRANCH ||
                (block->target && (block->start + into != block->target || repeated));
    if (!early || into >= block->size)
        return all;
    const uint8_t *lengths = AT(uint8_t, recorder_wire->lengths_at) + block->lengths;
    while (n < all && at < into)
        at += lengths[n++];
    return n;
}

static uint64_t weight(uint32_t word, uint32_t next) {
    if (word >= WIRE_PAYLOAD || word == 0)
        return 0;
    const wire_block *block = block_at(word);
    if (!system_counts(block->start))
        return 0;
    uint32_t n = retired(block, next), all = block->instructions;
    switch (recorder_wire->counted) {
    case WIRE_INSTRUCTIONS: return n;
    case WIRE_CYCLES: return n == all ? block->cost : (uint64_t)block->cost * n / all;
    default: return n == all && branch_taken(block, next);
    }
}

/* Counts what the segment's blocks did and samples where the period ends within it. */
static void count_segment(recorder_cpu *cpu) {
    uint32_t last = cpu->last;
    int64_t left = cpu->left;
    for (uint32_t *at = cpu->mark; at < cpu->pos; at++) {
        left -= (int64_t)weight(last, *at);
        last = *at;
        if (UNLIKELY(left <= 0) && last < WIRE_PAYLOAD) {
            take_sample(cpu, at + 1, recorder_wire->period);
            left += (int64_t)recorder_wire->period;
        }
    }
    cpu->left = left;
    cpu->last = last;
}

void recorder_sampled_segment(recorder_cpu *cpu) {
    const wire_header *wire = recorder_wire;
    if (wire->counted == WIRE_BRANCHES) {
        cpu->left -= (cpu->pos - cpu->mark) - (int64_t)cpu->uncounted;
        cpu->uncounted = 0;
        if (cpu->left <= 0) {
            take_sample(cpu, cpu->pos, wire->period);
            cpu->left += (int64_t)wire->period;
        }
    } else if (wire->counted == WIRE_TIME) {
        cpu->last += (uint32_t)((cpu->pos - cpu->mark) - (int64_t)cpu->uncounted);
        cpu->uncounted = 0;
        int64_t time = (int64_t)recorder_now();
        if (cpu->left <= time && cpu->pos[-1] < WIRE_PAYLOAD &&
            system_counts(block_at(cpu->pos[-1])->start)) {
            take_sample(cpu, cpu->pos, cpu->last);
            cpu->last = 0;
            cpu->left = time + (int64_t)wire->period;
        }
    } else {
        count_segment(cpu);
    }
    if (cpu->pos == cpu->ring + wire->ring_words) {
        cpu->pos = cpu->ring;
        cpu->wrapped = 1;
    }
    cpu->mark = cpu->pos;
    recorder_set_end(cpu);
}

void recorder_count_rest(recorder_cpu *cpu) {
    uint32_t counted = recorder_wire->counted;
    if (!cpu->slot || cpu->detached || recorder_wire->mode == WIRE_FULL ||
        counted == WIRE_BRANCHES || counted == WIRE_TIME)
        return;
    count_segment(cpu);
    cpu->mark = cpu->pos;
}
