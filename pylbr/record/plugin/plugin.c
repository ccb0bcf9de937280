/* The recorder inside QEMU: which blocks ran, in order, for each thread of a program or each
 * processor of a system.
 *
 * Translation describes a block once (wire_block); execution writes its number into the
 * thread's ring, nothing else.  The slow path is entered when a ring's segment is full or a
 * sample is due.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "recorder.h"
#include "target.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 1;
static int copies; /* this QEMU copies the bytes of an instruction */

/* QEMU reads the version that a plugin is made for when it has loaded it: 9.0 and newer, which
 * have scoreboards, refuse 1, older ones refuse 2. */
__attribute__((constructor)) static void choose_version(void) {
    if (dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_new"))
        qemu_plugin_version = 2;
}

static int started, threads, forked_threads;

/* ---- execution ---- */

/* The first thread, in most programs the only one, finds its ring at an address that is in
 * the code; TCG passes a thread's number only in memory. */
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

static const uint8_t *bytes_of(const struct qemu_plugin_insn *insn, uint8_t copied[16]) {
    const uint8_t *bytes = qemu_plugin_insn_data(insn, copied, 16);
    return copies ? copied : bytes;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    size_t n = qemu_plugin_tb_n_insns(tb);
    if (!n || n > 4096 || (recorder_system && !system_records(qemu_plugin_tb_vaddr(tb))))
        return;
    uint8_t lengths[4096], copied[16];
    const uint8_t *code = NULL;
    wire_block block = {.start = qemu_plugin_tb_vaddr(tb), .instructions = (uint16_t)n};
    recorder_prefetch(&block);
    struct qemu_plugin_insn *insn = NULL;
    size_t size = 0, cost = 0;
    for (size_t i = 0; i < n; i++) {
        insn = qemu_plugin_tb_get_insn(tb, i);
        size = qemu_plugin_insn_size(insn);
        lengths[i] = (uint8_t)size;
        code = bytes_of(insn, copied);
        cost += guest->cost(code, size);
    }
    uint64_t last = qemu_plugin_insn_vaddr(insn);
    block.last = (uint16_t)(last - block.start);
    block.size = (uint16_t)(block.last + size);
    block.cost = (uint16_t)(cost < 65535 ? cost : 65535);
    block.cls = (uint8_t)guest->branch(code, size, last, &block.target);
    if (!started && !recorder_system) {
        started = 1;
        guest_base = (uint64_t)(uintptr_t)qemu_plugin_insn_haddr(insn) - last;
        guest_started(&recorder_cpus[0], block.start);
    }
    uint32_t number = recorder_block(&block, lengths);
    if (!number) {
        __atomic_fetch_add(&recorder_wire->lost_threads, 1, __ATOMIC_RELAXED);
        return;
    }
    if (guest_is_handler(block.start))
        qemu_plugin_register_vcpu_tb_exec_cb(tb, handler_block_ran, QEMU_PLUGIN_CB_NO_REGS, NULL);
    qemu_plugin_register_vcpu_tb_exec_cb(
        tb, block.cls == WIRE_NO_BRANCH || !system_counts(block.start) ? branchless_block_ran
                                                                       : block_ran,
        QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)number);
}

/* ---- life of threads and processes ---- */

static void thread_created(qemu_plugin_id_t id, unsigned vcpu) {
    if (vcpu >= RECORDER_CPUS) {
        fprintf(stderr, "pylbr record: more than %d threads at once\n", RECORDER_CPUS);
        _exit(2);
    }
    recorder_reset(&recorder_cpus[vcpu]);
    __atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED);
}

static void program_ended(qemu_plugin_id_t id, void *data) {
    for (unsigned i = 0; i < RECORDER_CPUS && recorder_cpus[i].pos; i++)
        recorder_count_rest(&recorder_cpus[i]);
}

static void thread_ended(qemu_plugin_id_t id, unsigned vcpu) {
    recorder_cpu *cpu = &recorder_cpus[vcpu];
    recorder_count_rest(cpu);
    if (cpu->slot)
        STORE(cpu->slot->state, WIRE_DONE);
    recorder_reset(cpu);
    __atomic_fetch_sub(&threads, 1, __ATOMIC_RELAXED);
}

/* Only the forking thread lives on in the child, under the same vcpu number. */
static void forked(void) {
    recorder_adopted(getppid());
    forked_threads |= threads > 1;
    threads = 1;
    repair_forked();
    for (unsigned i = 0; i < RECORDER_CPUS && recorder_cpus[i].pos; i++)
        recorder_reset(&recorder_cpus[i]);
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

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_plugin_info *info, int argc,
                               char **argv) {
    copies = info->version.cur >= 3;
    reserve_install(info->version.cur);
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
    if (!target_install(info->target_name)) {
        fprintf(stderr, "pylbr record: no recorder for programs of %s\n", info->target_name);
        return -1;
    }
    recorder_system = info->system_emulation;
    if (!recorder_system) {
        guest_install(id, argc, argv);
        repair_install();
        pthread_atfork(NULL, NULL, forked);
    }
    qemu_plugin_register_vcpu_init_cb(id, thread_created);
    qemu_plugin_register_vcpu_exit_cb(id, thread_ended);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, program_ended, NULL);
    return 0;
}
