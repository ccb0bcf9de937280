/* What the parts of the plugin share: plugin.c records blocks, guest.c follows the guest's
 * system calls, repair.c lets QEMU survive a fork.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_RECORDER_H
#define PYLBR_RECORDER_H

#include <stdint.h>

#include "qemu_plugin.h"
#include "wire.h"

/* One virtual CPU, that is one thread of the guest; used by that thread alone. */
typedef struct recorder_cpu {
    uint32_t *pos;      /* where the next word goes */
    uint32_t *end;      /* reaching it calls the slow path */
    uint64_t uncounted; /* words since `mark` that are no branch */
    uint32_t *mark;     /* words from here on are not accounted for yet */
    uint32_t *ring;
    wire_slot *slot;    /* NULL until the thread's first block */
    int64_t left;       /* of the period */
    uint32_t first;     /* the word written before there is a ring */
    uint32_t last;      /* last word before `mark`, for events that need it */
    uint8_t wrapped;    /* the whole ring holds words of this thread */
    uint8_t detached;   /* nothing more is handed over */
} __attribute__((aligned(128))) recorder_cpu;

#define RECORDER_CPUS 65536
extern recorder_cpu recorder_cpus[RECORDER_CPUS];
extern wire_header *recorder_wire;

/* A message into the thread's ring; dropped when pylbr has stopped listening. */
void recorder_message(recorder_cpu *cpu, unsigned type, const void *head, uint32_t head_bytes,
                      const void *tail, uint32_t tail_bytes);
void recorder_event(recorder_cpu *cpu, unsigned event, const uint64_t *address);
/* The cpu's slot, taken when it has none. */
wire_slot *recorder_attach(recorder_cpu *cpu);

/* Whether this process is the child of one with several threads. */
int recorder_forked_threads(void);

void guest_install(qemu_plugin_id_t id, int argc, char **argv);
/* Called once a process, when its program is loaded, with a translated instruction. */
void guest_started(recorder_cpu *cpu, uint64_t guest_base);
/* Whether `address` is a signal handler of the guest. */
int guest_is_handler(uint64_t address);
/* Called as the block at a signal handler begins; `registers` is the guest's register file. */
void guest_handler_entered(unsigned vcpu, const uint64_t *registers);

void repair_install(void);
void repair_forked(void);
/* Whether threads may be created in a child of a threaded process. */
int repair_done(void);

#endif
