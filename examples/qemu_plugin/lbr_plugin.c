/* A TCG plugin that keeps a processor with LBRs for each vCPU, in C alone.
 *
 * qemu-x86_64 and qemu-system-x86_64 from 7.2 on (plugin interfaces 1 to 4).  At the end it prints
 * what the LBRs of vCPU 0 hold; with out=FILE it also writes a perf.data file with a sample every
 * `period` taken branches, which `perf report` reads.
 *
 *   cc -O2 -shared -fPIC lbr_plugin.c -o lbr_plugin.so $(python3 -m lbrcore --cflags --static)
 *   qemu-x86_64 -plugin ./lbr_plugin.so,ctl=0x7f0007,out=perf.data,period=1000 ./program
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lbrcore_cpu.h"
#include "lbrcore_perfdata.h"

/* Out of QEMU's plugin interface; no distribution ships its header. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
} qemu_info_t;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                           void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int,
                                          void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
/* Up to version 2 it returns the bytes; from version 3 on it copies them. */
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
const char *qemu_plugin_path_to_binary(void);
uint64_t qemu_plugin_start_code(void);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* QEMU 9.0 and newer, which have scoreboards, refuse plugins for version 1, older ones those for 2. */
__attribute__((constructor)) static void choose_version(void) {
    if (dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_new")) qemu_plugin_version = 2;
}

enum { MAX_VCPUS = 64 };
enum { DEBUGCTL = 0x1D9, LBR_CTL = 0x14CE, PMC0 = 0x4C1, EVTSEL0 = 0x186, GLOBAL_CTRL = 0x38F,
       STATUS_RESET = 0x390 };

static lbr_cpu *cpus[MAX_VCPUS];
static lbr_perfdata *file;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *model = "sapphire-rapids", *out;
static uint64_t ctl = 0x7F0007, period = 1000, samples;
static int interface, plain_cpl = 3;
static bool mapped; /* the program is in the file, or there is none */

/* The guest's PMI handler: a sample, and the counter starts again. */
static void sample(unsigned vcpu, const lbr_block *now) {
    lbr_entry entries[LBR_MAX_DEPTH];
    uint32_t count = lbr_cpu_records(cpus[vcpu], entries);
    pthread_mutex_lock(&lock);
    lbr_perfdata_sample_head head = {.ip = now->start, .time = ++samples, .period = period,
                                     .pid = 1, .tid = vcpu + 1, .cpu = vcpu,
                                     .kernel = now->start >> 63};
    if (lbr_perfdata_sample(file, &head, entries, count) != LBR_OK) period = 0;
    pthread_mutex_unlock(&lock);
    lbr_wrmsr(cpus[vcpu], STATUS_RESET, 1ull << 58 | 1, NULL); /* LBR_FRZ and the overflow */
    lbr_wrmsr(cpus[vcpu], PMC0, (1ull << 48) - period, NULL);
}

static void executed(unsigned vcpu, void *data) {
    const lbr_block *now = data;
    if (vcpu >= MAX_VCPUS) return;
    /* The interface does not tell the privilege level: in a system, by the half of memory. */
    int cpl = plain_cpl ? plain_cpl : now->start >> 63 ? 0 : 3;
    if (lbr_cpu_enter(cpus[vcpu], now, cpl) == LBR_PMI && file) sample(vcpu, now);
}

/* The program's executable segments, as they lie behind the first of them. */
static void map_program(void) {
    const char *path = qemu_plugin_path_to_binary();
    Elf64_Ehdr head;
    Elf64_Phdr part;
    bool first = true;
    uint64_t moved = 0;
    mapped = true; /* QEMU translates under a lock of its own */
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return;
    const char *name = strrchr(path, '/');
    lbr_perfdata_comm(file, 1, 1, 0, name ? name + 1 : path);
    if (pread(fd, &head, sizeof head, 0) == sizeof head && !memcmp(head.e_ident, ELFMAG, 4))
        for (int i = 0; i < head.e_phnum; i++) {
            off_t at = (off_t)(head.e_phoff + (uint64_t)i * sizeof part);
            if (pread(fd, &part, sizeof part, at) != sizeof part) break;
            if (part.p_type != PT_LOAD || !(part.p_flags & PF_X)) continue;
            if (first && head.e_type == ET_DYN) moved = qemu_plugin_start_code() - part.p_vaddr;
            first = false;
            uint64_t skew = part.p_vaddr % 4096;
            lbr_perfdata_mmap(file, 1, 1, 0, moved + part.p_vaddr - skew, part.p_filesz + skew,
                              part.p_offset - skew, path);
        }
    close(fd);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    if (file && !mapped) map_program();
    uint8_t copy[16];
    size_t count = qemu_plugin_tb_n_insns(tb);
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, count - 1);
    const void *code = qemu_plugin_insn_data(last, copy, sizeof copy);
    lbr_block *block = malloc(sizeof *block); /* read at each execution, never freed */
    if (!block) return;
    if (lbr_block_ends(block, qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0)),
                       (uint32_t)count, qemu_plugin_insn_vaddr(last),
                       interface >= 3 ? copy : code, qemu_plugin_insn_size(last)) == LBR_OK)
        qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

static void finished(qemu_plugin_id_t id, void *data) {
    lbr_entry entries[LBR_MAX_DEPTH];
    uint32_t depth = lbr_cpu_records(cpus[0], entries);
    (void)id, (void)data;
    for (uint32_t i = 0; i < depth && entries[i].to; i++)
        fprintf(stderr, "%2" PRIu32 " %#" PRIx64 " -> %#" PRIx64 " type %" PRIu64 "\n", i,
                entries[i].from, entries[i].to, entries[i].info >> 56 & 15);
    if (!file) return;
    int result = lbr_perfdata_close(file);
    if (result != LBR_OK) fprintf(stderr, "lbr_plugin: %s: %s\n", out, lbr_strerror(result));
    else fprintf(stderr, "lbr_plugin: %" PRIu64 " samples in %s\n", samples, out);
}

/* Recording as a driver sets it up; with a file, a counter of taken branches. */
static int set_up(lbr_cpu *cpu) {
    lbr_fault fault;
    int result = lbr_wrmsr(cpu, LBR_CTL, ctl, &fault);
    if (result == LBR_OK && out) {
        result = lbr_wrmsr(cpu, DEBUGCTL, 1 << 11, &fault); /* FREEZE_LBRS_ON_PMI */
        lbr_wrmsr(cpu, GLOBAL_CTRL, 1, NULL);
        lbr_wrmsr(cpu, EVTSEL0, 0x5320C4, NULL); /* BR_INST_RETIRED.NEAR_TAKEN, interrupt */
        lbr_wrmsr(cpu, PMC0, (1ull << 48) - period, NULL);
    }
    if (result != LBR_OK)
        fprintf(stderr, "lbr_plugin: %s: IA32_LBR_CTL cannot hold %#" PRIx64 ": %s\n", model, ctl,
                fault.rule);
    return result;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                               char **argv) {
    static const lbr_perfdata_event event = {"branches", 4, 0, 0x20C4, 0, 9};
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "ctl=", 4)) ctl = strtoull(argv[i] + 4, NULL, 0);
        if (!strncmp(argv[i], "period=", 7)) period = strtoull(argv[i] + 7, NULL, 0);
        if (!strncmp(argv[i], "model=", 6)) model = strdup(argv[i] + 6);
        if (!strncmp(argv[i], "out=", 4)) out = strdup(argv[i] + 4);
    }
    interface = info->version.cur;
    if (info->system_emulation) plain_cpl = 0;
    for (int i = 0; i < MAX_VCPUS; i++) {
        int result = lbr_cpu_new(&cpus[i], model);
        if (result != LBR_OK) fprintf(stderr, "lbr_plugin: %s: %s\n", model, lbr_strerror(result));
        if (result != LBR_OK || set_up(cpus[i]) != LBR_OK) return -1;
    }
    if (out) {
        lbr_perfdata_event sampled = event;
        sampled.period = period;
        if (info->system_emulation) sampled.branch_sample_type |= 2; /* KERNEL */
        int result = lbr_perfdata_open(&file, out, &sampled);
        if (result != LBR_OK) {
            fprintf(stderr, "lbr_plugin: %s: %s\n", out, lbr_strerror(result));
            return -1;
        }
        mapped = info->system_emulation;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
