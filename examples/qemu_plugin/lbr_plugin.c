/* A TCG plugin that keeps a processor with LBRs for each vCPU, in C alone.
 *
 * qemu-x86_64 and qemu-system-x86_64 from 7.2 on (plugin interfaces 1 to 4).  At the end it prints
 * what the LBRs of vCPU 0 hold; with out=FILE it also writes a perf.data file with a sample every
 * `period` taken branches, which `perf report` reads.
 *
 *   cc -O2 -shared -fPIC lbr_plugin.c samples.c -o lbr_plugin.so \
 *      $(python3 -m lbrcore --cflags --static)
 *   qemu-x86_64 -plugin ./lbr_plugin.so,ctl=0x7f0007,out=perf.data,period=1000 ./program
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_api.h"
#include "samples.h"

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* QEMU 9.0 and newer, which have scoreboards, refuse plugins for version 1, older ones those for 2. */
__attribute__((constructor)) static void choose_version(void) {
    if (dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_new")) qemu_plugin_version = 2;
}

enum { MAX_VCPUS = 64, LBR_CTL = 0x14CE };

static lbr_cpu *cpus[MAX_VCPUS];
static const char *model = "sapphire-rapids", *out;
static uint64_t ctl = 0x7F0007, period = 1000;
static int interface, plain_cpl = 3;

static void executed(unsigned vcpu, void *data) {
    const lbr_block *now = data;
    if (vcpu >= MAX_VCPUS) return;
    /* The interface does not tell the privilege level: in a system, by the half of memory. */
    int cpl = plain_cpl ? plain_cpl : now->start >> 63 ? 0 : 3;
    if (lbr_cpu_enter(cpus[vcpu], now, cpl) == LBR_PMI && out)
        samples_take(vcpu, cpus[vcpu], now->start);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    if (out) samples_map_program();
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
    if (out) samples_close();
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                               char **argv) {
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "ctl=", 4)) ctl = strtoull(argv[i] + 4, NULL, 0);
        if (!strncmp(argv[i], "period=", 7)) period = strtoull(argv[i] + 7, NULL, 0);
        if (!strncmp(argv[i], "model=", 6)) model = strdup(argv[i] + 6);
        if (!strncmp(argv[i], "out=", 4)) out = strdup(argv[i] + 4);
    }
    interface = info->version.cur;
    if (info->system_emulation) plain_cpl = 0;
    const char *about = model, *why = NULL;
    int result = LBR_OK;
    for (int i = 0; i < MAX_VCPUS && result == LBR_OK; i++) {
        lbr_fault fault = {0};
        if ((result = lbr_cpu_new(&cpus[i], model)) == LBR_OK) {
            result = lbr_wrmsr(cpus[i], LBR_CTL, ctl, &fault);
            why = fault.rule;
        }
    }
    if (result == LBR_OK && out) {
        result = samples_open(about = out, period, info->system_emulation);
        for (int i = 0; i < MAX_VCPUS && result == LBR_OK; i++) samples_count(cpus[i]);
    }
    if (result != LBR_OK) {
        fprintf(stderr, "lbr_plugin: %s: %s%s\n", about, why ? "IA32_LBR_CTL: " : "",
                why ? why : lbr_strerror(result));
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
