/* The part of QEMU's plugin interface that the recorder uses; no distribution ships the header.
 * Versions 1 (QEMU 6.0 to 8.2), 2 (9.0), 3 (9.1) and 4 (9.2, 10.0) differ in one function of it,
 * qemu_plugin_insn_data.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_QEMU_PLUGIN_H
#define PYLBR_QEMU_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

/* The head of qemu_info_t: which versions of the interface this QEMU speaks. */
typedef struct qemu_plugin_info {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
} qemu_plugin_info;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

typedef void (*qemu_plugin_tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*qemu_plugin_udata_cb)(unsigned vcpu, void *userdata);
typedef void (*qemu_plugin_vcpu_cb)(qemu_plugin_id_t, unsigned vcpu);
typedef void (*qemu_plugin_exit_cb)(qemu_plugin_id_t, void *userdata);
typedef void (*qemu_plugin_syscall_cb)(qemu_plugin_id_t, unsigned vcpu, int64_t number,
                                       uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
typedef void (*qemu_plugin_syscall_ret_cb)(qemu_plugin_id_t, unsigned vcpu, int64_t number,
                                           int64_t result);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, qemu_plugin_tb_trans_cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, qemu_plugin_udata_cb,
                                          enum qemu_plugin_cb_flags, void *userdata);
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, qemu_plugin_vcpu_cb);
void qemu_plugin_register_vcpu_exit_cb(qemu_plugin_id_t, qemu_plugin_vcpu_cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, qemu_plugin_exit_cb, void *userdata);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, qemu_plugin_syscall_cb);
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t, qemu_plugin_syscall_ret_cb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
/* Up to version 2 returns the bytes; from version 3 on copies up to `size` of them to `to`. */
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *to, size_t size);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
const char *qemu_plugin_path_to_binary(void);
uint64_t qemu_plugin_start_code(void);

#endif
