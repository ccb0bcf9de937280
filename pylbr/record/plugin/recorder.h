/* What the parts of the plugin share.
 *
 * plugin.c   entry points: translation, execution, threads and processes
 * blocks.c   the table of blocks         ring.c     a thread's ring and slot
 * sample.c   periods and samples         messages.c what is sent outside the ring
 * guest.c    system calls, handed to:    memory.c   reads of the guest's memory
 *   mappings.c  signals.c  names.c  exec.c  reserve.c
 * target.c   what depends on the guest's architecture
 * repair.c   lets QEMU survive a fork
 * system.c   a whole system, in place of guest.c to repair.c
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_RECORDER_H
#define PYLBR_RECORDER_H

#include <stdint.h>

#include "qemu_plugin.h"
#include "wire.h"

#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define AT(type, offset) ((type *)((char *)recorder_wire + (offset)))
#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELEASE)

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

/* All of it is the plugin's own: reached without a table of addresses. */
#pragma GCC visibility push(hidden)

extern recorder_cpu recorder_cpus[RECORDER_CPUS];
extern wire_header *recorder_wire;

/* ring.c */
uint64_t recorder_now(void);
void recorder_pause(void);
void recorder_reset(recorder_cpu *cpu);
/* The process has been forked from `parent`: its threads are new ones. */
void recorder_adopted(int parent);
/* The cpu's slot, taken when it has none. */
wire_slot *recorder_attach(recorder_cpu *cpu);
void recorder_set_end(recorder_cpu *cpu);
void recorder_slow_path(recorder_cpu *cpu);
/* An event between two blocks, with the address that belongs to it, or NULL. */
void recorder_event(recorder_cpu *cpu, unsigned event, const uint64_t *address);

static inline void push(recorder_cpu *cpu, uint32_t word) {
    uint32_t *pos = cpu->pos;
    *pos = word;
    cpu->pos = ++pos;
    if (UNLIKELY(pos == cpu->end))
        recorder_slow_path(cpu);
}

/* sample.c */
void recorder_sampled_segment(recorder_cpu *cpu);
/* Counts the blocks since the last full segment, for events that are counted by segment. */
void recorder_count_rest(recorder_cpu *cpu);

/* messages.c: a message into the thread's ring; dropped when pylbr has stopped listening. */
void recorder_message(recorder_cpu *cpu, unsigned type, const void *head, uint32_t head_bytes,
                      const void *tail, uint32_t tail_bytes);

/* blocks.c: number of the block, which is added if no process has met it; 0 if it does not fit. */
uint32_t recorder_block(wire_block *block, const uint8_t *lengths);
void recorder_prefetch(const wire_block *block);

/* plugin.c: whether this process is the child of one with several threads. */
int recorder_forked_threads(void);

/* memory.c: copies without ever faulting; 0 when all bytes were there. */
extern uint64_t guest_base;
int guest_read(void *to, uint64_t address, size_t size);
/* The string there, allocated; NULL when it is not readable or longer than the kernel takes. */
char *guest_string(uint64_t address);
char **guest_strings(uint64_t address, size_t *count);

/* guest.c */
void guest_install(qemu_plugin_id_t id, int argc, char **argv);
/* Called once per executed program, when it is loaded, with the first address that runs. */
void guest_started(recorder_cpu *cpu, uint64_t first);

/* mappings.c */
void guest_report_program(recorder_cpu *cpu, uint64_t first);
void guest_mapped(recorder_cpu *cpu, uint64_t address, uint64_t size, int fd, uint64_t offset);
void guest_became_executable(recorder_cpu *cpu, uint64_t address, uint64_t size);

/* signals.c: whether `address` is a signal handler of the guest. */
int guest_is_handler(uint64_t address);
void guest_remember_handler(uint64_t action);
/* Called as the block at a signal handler begins; `registers` is the guest's register file. */
void guest_handler_entered(unsigned vcpu, const uint64_t *registers);

/* names.c */
void names_install(int argc, char **argv);
void names_started(recorder_cpu *cpu);
void names_attached(recorder_cpu *cpu);
void names_returned(recorder_cpu *cpu, int64_t number, const uint64_t *args, int64_t result);

/* exec.c: the guest executes a program; returns when its own call shall take its course. */
void exec_install(int argc, char **argv);
void exec_called(recorder_cpu *cpu, uint64_t path, int directory, int flags, uint64_t argv,
                 uint64_t environment);

/* reserve.c: for a QEMU of that plugin interface. */
void reserve_install(int interface);
/* Ends the process if QEMU would need too much memory for so much address space. */
void reserve_called(recorder_cpu *cpu, uint64_t size, uint64_t protection, uint64_t flags);

/* system.c: set where QEMU runs a system, not a program. */
extern int recorder_system;
/* Whether a block that begins there is recorded. */
int system_records(uint64_t start);
/* Whether the period counts events of a block that begins there. */
static inline int system_counts(uint64_t start) {
    uint32_t halves = recorder_wire->counted_halves;
    return !halves || halves >> (start >> 63) & 1;
}

/* repair.c */
void repair_install(void);
void repair_forked(void);
/* Whether threads may be created in a child of a threaded process. */
int repair_done(void);

#pragma GCC visibility pop

#endif
