/* A thread's ring: where the numbers of the blocks that ran are written, and how it is handed over.
 *
 * In sampled mode the ring is a window that pylbr never sees; a sample copies as much of it as
 * holds `depth` accepted branches.  In full mode pylbr drains the ring in chunks, and the
 * thread waits for it when all are full.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "recorder.h"

recorder_cpu recorder_cpus[RECORDER_CPUS];
wire_header *recorder_wire;
static int parent_pid;

uint64_t recorder_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void recorder_pause(void) {
    struct timespec t = {0, 50000};
    nanosleep(&t, NULL);
}

void recorder_adopted(int parent) {
    parent_pid = parent;
}

void recorder_reset(recorder_cpu *cpu) {
    memset(cpu, 0, sizeof *cpu);
    cpu->pos = &cpu->first;
    cpu->end = &cpu->first + 1;
}

static wire_slot *claim_slot(void) {
    wire_slot *slots = AT(wire_slot, recorder_wire->slots_at);
    for (uint32_t i = 0; i < recorder_wire->slots; i++) {
        uint32_t expected = WIRE_FREE;
        if (LOAD(slots[i].state) != WIRE_FREE ||
            !__atomic_compare_exchange_n(&slots[i].state, &expected, WIRE_CLAIMED, 0,
                                         __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        slots[i].pid = (uint32_t)getpid();
        uint32_t used = LOAD(recorder_wire->slots_used);
        while (used <= i && !__atomic_compare_exchange_n(&recorder_wire->slots_used, &used, i + 1,
                                                         0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            ;
        return &slots[i];
    }
    return NULL;
}

/* The thread continues unrecorded, in a ring of its own that wraps for ever. */
static void detach(recorder_cpu *cpu) {
    static uint32_t scratch[4096];
    if (!cpu->slot && !LOAD(recorder_wire->stopped))
        __atomic_fetch_add(&recorder_wire->lost_threads, 1, __ATOMIC_RELAXED);
    cpu->detached = 1;
    cpu->ring = cpu->pos = cpu->mark = scratch;
    cpu->end = scratch + 4096;
}

void recorder_set_end(recorder_cpu *cpu) {
    const wire_header *wire = recorder_wire;
    int64_t segment = wire->chunk_words;
    if (wire->mode == WIRE_SAMPLED && wire->counted == WIRE_BRANCHES && cpu->left < segment)
        segment = cpu->left;
    uint32_t *limit = cpu->ring + wire->ring_words;
    cpu->end = limit - cpu->mark < segment ? limit : cpu->mark + segment;
}

wire_slot *recorder_attach(recorder_cpu *cpu) {
    if (cpu->slot || cpu->detached)
        return cpu->slot;
    int had_first = cpu->pos != &cpu->first;
    wire_slot *slot = NULL;
    for (int tries = 0; !slot && tries < 100 && !LOAD(recorder_wire->stopped); tries++) {
        slot = claim_slot();
        if (!slot)
            recorder_pause();
    }
    if (!slot) {
        detach(cpu);
        return NULL;
    }
    slot->tid = (uint32_t)syscall(SYS_gettid);
    slot->parent = (uint32_t)(parent_pid ? parent_pid : getppid());
    slot->started = recorder_now();
    size_t index = (size_t)(slot - AT(wire_slot, recorder_wire->slots_at));
    cpu->ring = AT(uint32_t, recorder_wire->rings_at) + index * recorder_wire->ring_words;
    cpu->slot = slot;
    cpu->mark = cpu->pos = cpu->ring;
    cpu->left = (int64_t)recorder_wire->period;
    if (recorder_wire->counted == WIRE_BRANCHES)
        cpu->left += 1; /* the newest block's branch has not run yet */
    if (recorder_wire->counted == WIRE_TIME)
        cpu->left += (int64_t)slot->started;
    if (had_first)
        *cpu->pos++ = cpu->first;
    recorder_set_end(cpu);
    STORE(slot->state, WIRE_LIVE);
    names_attached(cpu);
    return slot;
}

static void full_chunk(recorder_cpu *cpu) {
    const wire_header *wire = recorder_wire;
    wire_slot *slot = cpu->slot;
    uint64_t chunks = wire->ring_words / wire->chunk_words;
    STORE(slot->chunks_written, slot->chunks_written + 1);
    while (slot->chunks_written - LOAD(slot->chunks_read) >= chunks) {
        if (LOAD(recorder_wire->stopped) || LOAD(slot->state) != WIRE_LIVE)
            return detach(cpu);
        recorder_pause();
    }
    cpu->pos = cpu->mark = cpu->ring + slot->chunks_written % chunks * wire->chunk_words;
    cpu->end = cpu->pos + wire->chunk_words;
}

__attribute__((noinline, cold)) void recorder_slow_path(recorder_cpu *cpu) {
    if (cpu->detached)
        cpu->pos = cpu->ring;
    else if (!cpu->slot)
        recorder_attach(cpu);
    else if (LOAD(recorder_wire->stopped))
        detach(cpu);
    else if (recorder_wire->mode == WIRE_FULL)
        full_chunk(cpu);
    else
        recorder_sampled_segment(cpu);
}

void recorder_event(recorder_cpu *cpu, unsigned event, const uint64_t *address) {
    recorder_attach(cpu);
    for (int shift = 0; address && shift < 3; shift++) {
        uint64_t bits = *address >> (shift * WIRE_PAYLOAD_BITS);
        cpu->uncounted++;
        push(cpu, WIRE_PAYLOAD | (uint32_t)(bits & (WIRE_PAYLOAD - 1)));
    }
    cpu->uncounted++;
    push(cpu, WIRE_EVENT | event);
}

