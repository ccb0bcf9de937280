/* Messages from the plugin to pylbr: a ring of bytes per thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <sched.h>
#include <string.h>

#include "recorder.h"

static int wait_for_room(wire_slot *slot, uint32_t size) {
    while (recorder_wire->message_bytes - (slot->written - LOAD(slot->read)) < size) {
        if (LOAD(recorder_wire->stopped) || LOAD(slot->state) != WIRE_LIVE)
            return 0;
        recorder_pause();
    }
    return 1;
}

void recorder_message(recorder_cpu *cpu, unsigned type, const void *head, uint32_t head_bytes,
                      const void *tail, uint32_t tail_bytes) {
    wire_slot *slot = recorder_attach(cpu);
    if (!slot || cpu->detached)
        return;
    uint32_t ring = recorder_wire->message_bytes, bytes = head_bytes + tail_bytes;
    uint32_t size = (uint32_t)(sizeof(wire_message) + bytes + 7) & ~7u;
    size_t index = (size_t)(slot - AT(wire_slot, recorder_wire->slots_at));
    char *base = AT(char, recorder_wire->messages_at) + index * ring;
    uint32_t at = (uint32_t)(slot->written & (ring - 1)), rest = ring - at;
    if (size > ring / 2 || !wait_for_room(slot, size + (rest < size ? rest : 0)))
        return;
    if (rest < size) {
        /* A size and a type fit always: all sizes are multiples of 8. */
        memcpy(base + at, &(uint32_t[2]){rest, WIRE_PAD}, 8);
        STORE(slot->written, slot->written + rest);
        at = 0;
    }
    uint32_t processor = recorder_system ? (uint32_t)(cpu - recorder_cpus) : (uint32_t)sched_getcpu();
    wire_message message = {size, type, recorder_now(), bytes, processor};
    memcpy(base + at, &message, sizeof message);
    memcpy(base + at + sizeof message, head, head_bytes);
    if (tail_bytes)
        memcpy(base + at + sizeof message + head_bytes, tail, tail_bytes);
    STORE(slot->written, slot->written + size);
}
