/* The recorder inside QEMU user mode: which blocks ran, in order, for each thread.
 *
 * Translation describes a block once (wire_block); execution writes its number into the
 * thread's ring, nothing else.  The slow path is entered when a ring's segment is full or a
 * sample is due.  In sampled mode the ring is a window that pylbr never sees; a sample copies
 * as much of it as holds `depth` accepted branches.  In full mode the ring is drained in
 * chunks by pylbr, and the thread waits for it when all are full.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "decode.h"
#include "recorder.h"

#define EXPORT __attribute__((visibility("default")))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define AT(type, offset) ((type *)((char *)recorder_wire + (offset)))
#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELEASE)

EXPORT int qemu_plugin_version = 1;

recorder_cpu recorder_cpus[RECORDER_CPUS];
wire_header *recorder_wire;
static wire_block *blocks;
static pid_t parent_pid;
static int started, threads, forked_threads;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pause_briefly(void) {
    struct timespec t = {0, 50000};
    nanosleep(&t, NULL);
}

/* ---- slots ---- */

static void reset_cpu(recorder_cpu *cpu) {
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

/* The thread goes on unrecorded, in a ring of its own that wraps for ever. */
static void detach(recorder_cpu *cpu) {
    static uint32_t scratch[4096];
    if (!cpu->slot && !LOAD(recorder_wire->stopped))
        __atomic_fetch_add(&recorder_wire->lost_threads, 1, __ATOMIC_RELAXED);
    cpu->detached = 1;
    cpu->ring = cpu->pos = cpu->mark = scratch;
    cpu->end = scratch + 4096;
}

static void set_end(recorder_cpu *cpu) {
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
            pause_briefly();
    }
    if (!slot) {
        detach(cpu);
        return NULL;
    }
    slot->tid = (uint32_t)syscall(SYS_gettid);
    slot->parent = (uint32_t)(parent_pid ? parent_pid : getppid());
    slot->started = now();
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
    set_end(cpu);
    STORE(slot->state, WIRE_LIVE);
    return slot;
}

/* ---- messages ---- */

static int wait_for_room(wire_slot *slot, uint32_t size) {
    while (recorder_wire->message_bytes - (slot->written - LOAD(slot->read)) < size) {
        if (LOAD(recorder_wire->stopped) || LOAD(slot->state) != WIRE_LIVE)
            return 0;
        pause_briefly();
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
    wire_message message = {size, type, now(), bytes, (uint32_t)sched_getcpu()};
    memcpy(base + at, &message, sizeof message);
    memcpy(base + at + sizeof message, head, head_bytes);
    if (tail_bytes)
        memcpy(base + at + sizeof message + head_bytes, tail, tail_bytes);
    STORE(slot->written, slot->written + size);
}

/* ---- samples ---- */

static int branch_taken(const wire_block *block, uint32_t next_word) {
    if (block->cls == WIRE_NO_BRANCH)
        return 0;
    if (block->cls != CLS_COND || next_word >= WIRE_PAYLOAD)
        return 1;
    return blocks[next_word].start != block->start + block->size;
}

/* Hands over the words before `at`, enough of them for `depth` accepted branches. */
static void take_sample(recorder_cpu *cpu, const uint32_t *at, uint64_t period) {
    const wire_header *wire = recorder_wire;
    uint32_t window[8192], n = 0, found = 0, next = at[-1];
    uint32_t available = (uint32_t)(at - cpu->ring);
    /* What lies behind `pos` is the oldest part of the ring, unless the ring is new. */
    if (cpu->wrapped)
        available += (uint32_t)(cpu->ring + wire->ring_words - cpu->pos);
    const uint32_t *word = at;
    while (n < available && n < 8192 && found <= wire->depth) {
        if (word == cpu->ring)
            word = cpu->ring + wire->ring_words;
        uint32_t w = *--word;
        window[8191 - n++] = w;
        if (w < WIRE_PAYLOAD && n > 1) {
            const wire_block *block = &blocks[w];
            found += (wire->accept >> (block->cls & 31) & 1) && branch_taken(block, next);
        }
        next = w;
    }
    recorder_message(cpu, WIRE_SAMPLE, &period, sizeof period, window + 8192 - n, n * 4);
}

/* Instructions of the block that retired before `next` ran: a `rep` that goes on enters its
 * own block anew and has not retired, nor has what QEMU is about to repeat. */
static uint32_t retired(const wire_block *block, uint32_t next) {
    uint32_t n = 0, all = block->instructions;
    if (next == 0 || next >= WIRE_PAYLOAD)
        return all;
    uint64_t into = blocks[next].start - block->start, at = 0;
    int repeated = into == 0 && blocks[next].instructions == 1 && &blocks[next] != block;
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
    const wire_block *block = &blocks[word];
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

static void sampled_segment(recorder_cpu *cpu) {
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
        int64_t time = (int64_t)now();
        if (cpu->left <= time && cpu->pos[-1] < WIRE_PAYLOAD) {
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
    set_end(cpu);
}

static void full_chunk(recorder_cpu *cpu) {
    const wire_header *wire = recorder_wire;
    wire_slot *slot = cpu->slot;
    uint64_t chunks = wire->ring_words / wire->chunk_words;
    STORE(slot->chunks_written, slot->chunks_written + 1);
    while (slot->chunks_written - LOAD(slot->chunks_read) >= chunks) {
        if (LOAD(recorder_wire->stopped) || LOAD(slot->state) != WIRE_LIVE)
            return detach(cpu);
        pause_briefly();
    }
    cpu->pos = cpu->mark = cpu->ring + slot->chunks_written % chunks * wire->chunk_words;
    cpu->end = cpu->pos + wire->chunk_words;
}

static __attribute__((noinline, cold)) void slow_path(recorder_cpu *cpu) {
    if (cpu->detached)
        cpu->pos = cpu->ring;
    else if (!cpu->slot)
        recorder_attach(cpu);
    else if (LOAD(recorder_wire->stopped))
        detach(cpu);
    else if (recorder_wire->mode == WIRE_FULL)
        full_chunk(cpu);
    else
        sampled_segment(cpu);
}

/* ---- execution ---- */

static inline void push(recorder_cpu *cpu, uint32_t word) {
    uint32_t *pos = cpu->pos;
    *pos = word;
    cpu->pos = ++pos;
    if (UNLIKELY(pos == cpu->end))
        slow_path(cpu);
}

/* The first thread, in most programs the only one, finds its ring at an address that the code
 * knows; TCG tells a thread's number only in memory. */
static __attribute__((noinline)) void block_ran_in_thread(unsigned vcpu, void *number) {
    push(&recorder_cpus[vcpu], (uint32_t)(uintptr_t)number);
}

static void block_ran(unsigned vcpu, void *number) {
    if (UNLIKELY(vcpu))
        return block_ran_in_thread(vcpu, number);
    push(&recorder_cpus[0], (uint32_t)(uintptr_t)number);
}

static void branchless_block_ran(unsigned vcpu, void *number) {
    if (UNLIKELY(vcpu)) {
        recorder_cpus[vcpu].uncounted++;
        return block_ran_in_thread(vcpu, number);
    }
    recorder_cpus[0].uncounted++;
    push(&recorder_cpus[0], (uint32_t)(uintptr_t)number);
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

#if defined(__x86_64__)
/* TCG keeps the guest's CPU state in rbp while translated code runs; its registers lie at
 * its start, and at the first instruction of a block all are in memory. */
__attribute__((naked)) static void handler_block_ran(unsigned vcpu, void *number) {
    __asm__("mov %rbp, %rsi\n\tjmp guest_handler_entered");
}
#else
static void handler_block_ran(unsigned vcpu, void *number) {
    guest_handler_entered(vcpu, NULL);
}
#endif

/* ---- translation ---- */

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

/* Number of the block, which is entered if no process has met it; 0 without room. */
static uint32_t number_of(wire_block *block, const uint8_t *lengths) {
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

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    size_t n = qemu_plugin_tb_n_insns(tb);
    if (!n || n > 4096)
        return;
    uint8_t lengths[4096];
    const uint8_t *code = NULL;
    wire_block block = {.start = qemu_plugin_tb_vaddr(tb), .instructions = (uint16_t)n};
    __builtin_prefetch(AT(uint32_t, recorder_wire->buckets_at) + first_bucket(&block));
    struct qemu_plugin_insn *insn = NULL;
    size_t size = 0, cost = 0;
    for (size_t i = 0; i < n; i++) {
        insn = qemu_plugin_tb_get_insn(tb, i);
        size = qemu_plugin_insn_size(insn);
        lengths[i] = (uint8_t)size;
        code = qemu_plugin_insn_data(insn);
        cost += decode_cost(code, size);
    }
    uint64_t last = qemu_plugin_insn_vaddr(insn);
    block.last = (uint16_t)(last - block.start);
    block.size = (uint16_t)(block.last + size);
    block.cost = (uint16_t)(cost < 65535 ? cost : 65535);
    block.cls = (uint8_t)decode_branch(code, size, last, &block.target);
    if (!started) {
        started = 1;
        guest_started(&recorder_cpus[0], (uint64_t)(uintptr_t)qemu_plugin_insn_haddr(insn) - last);
    }
    uint32_t number = number_of(&block, lengths);
    if (!number) {
        __atomic_fetch_add(&recorder_wire->lost_threads, 1, __ATOMIC_RELAXED);
        return;
    }
    if (guest_is_handler(block.start))
        qemu_plugin_register_vcpu_tb_exec_cb(tb, handler_block_ran, QEMU_PLUGIN_CB_NO_REGS, NULL);
    qemu_plugin_register_vcpu_tb_exec_cb(
        tb, block.cls == WIRE_NO_BRANCH ? branchless_block_ran : block_ran,
        QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)number);
}

/* ---- life of threads and processes ---- */

static void thread_created(qemu_plugin_id_t id, unsigned vcpu) {
    if (vcpu >= RECORDER_CPUS) {
        fprintf(stderr, "pylbr record: more than %d threads at once\n", RECORDER_CPUS);
        _exit(2);
    }
    reset_cpu(&recorder_cpus[vcpu]);
    __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
}

/* Counts the blocks since the last full segment, for events that are counted by segment. */
static void count_rest(recorder_cpu *cpu) {
    uint32_t counted = recorder_wire->counted;
    if (!cpu->slot || cpu->detached || recorder_wire->mode == WIRE_FULL ||
        counted == WIRE_BRANCHES || counted == WIRE_TIME)
        return;
    count_segment(cpu);
    cpu->mark = cpu->pos;
}

static void program_ended(qemu_plugin_id_t id, void *data) {
    for (unsigned i = 0; i < RECORDER_CPUS && recorder_cpus[i].pos; i++)
        count_rest(&recorder_cpus[i]);
}

static void thread_ended(qemu_plugin_id_t id, unsigned vcpu) {
    recorder_cpu *cpu = &recorder_cpus[vcpu];
    count_rest(cpu);
    if (cpu->slot)
        STORE(cpu->slot->state, WIRE_DONE);
    reset_cpu(cpu);
    __atomic_fetch_sub(&threads, 1, __ATOMIC_RELAXED);
}

/* Only the forking thread lives on in the child, under the same vcpu number. */
static void forked(void) {
    parent_pid = getppid();
    forked_threads |= threads > 1;
    threads = 1;
    repair_forked();
    for (unsigned i = 0; i < RECORDER_CPUS && recorder_cpus[i].pos; i++)
        reset_cpu(&recorder_cpus[i]);
}

int recorder_forked_threads(void) {
    return forked_threads;
}

static wire_header *map_wire(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status))
        return NULL;
    errno = 0;
    wire_header *wire = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_NORESERVE, fd, 0);
    close(fd);
    if (wire == MAP_FAILED || wire->magic != WIRE_MAGIC || wire->version != WIRE_VERSION ||
        wire->size > (uint64_t)status.st_size)
        return NULL;
    return wire;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    errno = 0;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "wire=", 5))
            recorder_wire = map_wire(argv[i] + 5);
    if (!recorder_wire && errno == ENOENT)
        return 0; /* pylbr has ended meanwhile; what outlives it runs unrecorded */
    if (!recorder_wire) {
        fprintf(stderr, "pylbr record: the recording's shared memory is gone or does not fit\n");
        return -1;
    }
    blocks = AT(wire_block, recorder_wire->blocks_at);
    guest_install(id, argc, argv);
    repair_install();
    pthread_atfork(NULL, NULL, forked);
    qemu_plugin_register_vcpu_init_cb(id, thread_created);
    qemu_plugin_register_vcpu_exit_cb(id, thread_ended);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, program_ended, NULL);
    return 0;
}
