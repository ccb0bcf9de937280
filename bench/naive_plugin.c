/* What one writes first: a QEMU plugin that logs the address of every block to a file. */
#include <stdio.h>
#include <string.h>

#include "qemu_plugin.h"

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static FILE *file;

static void block_ran(unsigned vcpu, void *address) {
    fwrite(&address, sizeof address, 1, file);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_ran, QEMU_PLUGIN_CB_NO_REGS,
                                         (void *)qemu_plugin_tb_vaddr(tb));
}

static void ended(qemu_plugin_id_t id, void *data) {
    fclose(file);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
                                                               const void *info, int argc,
                                                               char **argv) {
    file = fopen(strncmp(argv[0], "out=", 4) ? "/dev/null" : argv[0] + 4, "w");
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
