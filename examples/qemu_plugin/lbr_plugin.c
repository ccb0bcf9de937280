/* A TCG plugin that keeps the LBR facility of each vCPU in QEMU's own process.
 *
 * Works with qemu-x86_64 and qemu-system-x86_64 7.2 (plugin interface 1).  The facility is
 * reached through lbrcore's table; Python is started once, to load it, and takes no part
 * afterwards.  At the end the plugin prints what the LBRs hold.
 *
 *   cc -O2 -shared -fPIC lbr_plugin.c -o lbr_plugin.so $(python3-config --includes)
 *      -I"$LBRCORE_INCLUDE" -I"$X86_INCLUDE" $(python3-config --embed --ldflags)
 *   qemu-x86_64 -plugin ./lbr_plugin.so,ctl=0x7f0007 ./program
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "lbrcore.h"

/* Out of QEMU's plugin interface, version 1; Debian ships no header of it. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    union { struct { int smp_vcpus, max_vcpus; } system; };
} qemu_info_t;
typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*vcpu_udata_cb)(unsigned int, void *);
typedef void (*udata_cb)(qemu_plugin_id_t, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, vcpu_udata_cb, int, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, udata_cb, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { NO_BRANCH = X86_NO_BRANCH, MAX_VCPUS = 64 };

/* What a block ends in; made once a translation, read at each execution, never freed. */
typedef struct {
    uint64_t start, last, end, target; /* target: 0 unless direct */
    uint32_t instructions;
    uint8_t cls;
} block;

typedef struct {
    lbr_state *state;
    const block *previous;
    uint32_t since;
} vcpu;

static const lbrcore_api *lbr;
static vcpu vcpus[MAX_VCPUS];
static uint64_t ctl = 0x7F0007;
static uint8_t cpl = 3;

/* Class and target of the branch instruction at `at`; what the decoder refuses is none. */
static uint8_t classify(const uint8_t *code, size_t size, uint64_t at, uint64_t *target) {
    struct x86_insn insn;
    *target = 0;
    if (!x86_decode(code, size, &insn)) return NO_BRANCH;
    if (insn.cls == LBR_COND || insn.cls == LBR_NEAR_REL_JMP || insn.cls == LBR_NEAR_REL_CALL)
        *target = at + size + (uint64_t)insn.displacement;
    return insn.cls;
}

/* A block begins: the one before it has ended, in the branch that it ends in. */
static void executed(unsigned int index, void *data) {
    const block *now = data;
    if (index >= MAX_VCPUS) return;
    vcpu *v = &vcpus[index];
    const block *old = v->previous;
    v->previous = now;
    if (!old) return;
    v->since += old->instructions;
    const bool fell = now->start == old->end;
    if (old->cls == NO_BRANCH || old->cls == LBR_ZERO_CALL) return;
    if (fell && (old->cls == LBR_COND || old->cls == LBR_SYSCALL))
        return; /* not taken; system calls of user mode are served outside of the guest */
    if (old->target && now->start != old->target) return; /* a signal came between */
    lbr_branch branch = {.from = old->last, .to = now->start, .cycles = v->since,
                         .instructions = v->since, .cls = old->cls, .cpl_from = cpl,
                         .cpl_to = cpl};
    v->since = 0;
    lbr->record(v->state, &branch);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    const size_t count = qemu_plugin_tb_n_insns(tb);
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, count - 1);
    block *b = malloc(sizeof *b);
    if (!b) return;
    b->start = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    b->last = qemu_plugin_insn_vaddr(last);
    b->end = b->last + qemu_plugin_insn_size(last);
    b->instructions = (uint32_t)count;
    b->cls = classify(qemu_plugin_insn_data(last), qemu_plugin_insn_size(last), b->last,
                      &b->target);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, b);
}

static void finished(qemu_plugin_id_t id, void *data) {
    (void)id;
    (void)data;
    lbr_entry entries[LBR_MAX_DEPTH];
    const uint32_t depth = lbr->read_records(vcpus[0].state, entries);
    for (uint32_t i = 0; i < depth && entries[i].to; i++)
        fprintf(stderr, "%2" PRIu32 " %#" PRIx64 " -> %#" PRIx64 " type %" PRIu64 "\n", i,
                entries[i].from, entries[i].to, entries[i].info >> 56 & 15);
}

/* Python's extension modules look for its functions in the global scope, but QEMU loads
 * plugins and what they need into a scope of their own. */
static const lbrcore_api *import_lbrcore(void) {
    Dl_info python;
    if (dladdr((void *)&Py_InitializeEx, &python))
        dlopen(python.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
    Py_InitializeEx(0);
    const lbrcore_api *table = lbrcore_import();
    if (!table) PyErr_Print();
    PyEval_SaveThread(); /* this thread is QEMU's from here on */
    return table;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                               char **argv) {
    const lbr_config config = {.flavour = LBR_ARCHITECTURAL, .depth_bitmap = 0x0F,
                               .linear_width = 48, .ctl_mask = 0x7F000F,
                               .info_mask = 0xFF0000000000FFFF};
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "ctl=", 4)) ctl = strtoull(argv[i] + 4, NULL, 0);
    if (info->system_emulation) cpl = 0; /* the interface does not tell; take it for the kernel */
    lbr = import_lbrcore();
    if (!lbr) return -1;
    for (int i = 0; i < MAX_VCPUS; i++) {
        vcpus[i].state = lbr->create(&config);
        if (!vcpus[i].state || lbr->write_ctl(vcpus[i].state, ctl) != LBR_OK) {
            fprintf(stderr, "lbr_plugin: IA32_LBR_CTL cannot hold %#" PRIx64 "\n", ctl);
            return -1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
