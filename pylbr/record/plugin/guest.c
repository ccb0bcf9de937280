/* What the guest asks of the kernel, as far as it bears on a recording.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "recorder.h"
#include "target.h"

static __thread uint64_t call_args[6];

void guest_started(recorder_cpu *cpu, uint64_t first) {
    names_started(cpu);
    guest_report_program(cpu, first);
}

/* QEMU would abort, or hang for ever. */
static void refuse_thread(recorder_cpu *cpu) {
    static const char reason[] =
        "this QEMU would hang, for it cannot run threads in the child of a threaded process";
    const char *path = qemu_plugin_path_to_binary();
    recorder_message(cpu, WIRE_KILLED, path, (uint32_t)strlen(path) + 1, reason,
                     sizeof reason - 1);
    kill(getpid(), SIGKILL);
}

static void call(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                 uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    recorder_cpu *cpu = &recorder_cpus[vcpu];
    memcpy(call_args, (uint64_t[6]){a1, a2, a3, a4, a5, a6}, sizeof call_args);
    if (number == guest->calls.rt_sigaction)
        guest_remember_handler(a2);
    else if (number == guest->calls.rt_sigreturn)
        recorder_event(cpu, WIRE_SIGRETURN, NULL);
    else if (number == guest->calls.mmap)
        reserve_called(cpu, a2, a3, a4);
    else if (number == guest->calls.mremap)
        reserve_called(cpu, a3, PROT_NONE, MAP_NORESERVE);
    else if (number == guest->calls.execve)
        exec_called(cpu, a1, AT_FDCWD, 0, a2, a3);
    else if (number == guest->calls.execveat)
        exec_called(cpu, a2, (int)a1, (int)a5, a3, a4);
    else if (number == guest->calls.clone && a1 & CLONE_THREAD && recorder_forked_threads() &&
             !repair_done())
        refuse_thread(cpu);
}

static void returned(qemu_plugin_id_t id, unsigned vcpu, int64_t number, int64_t result) {
    recorder_cpu *cpu = &recorder_cpus[vcpu];
    const uint64_t *a = call_args;
    int failed = (uint64_t)result >= -4096ull;
    if (number == guest->calls.mprotect && a[2] & PROT_EXEC && !failed)
        guest_became_executable(cpu, a[0], a[1]);
    else if (number == guest->calls.mmap && a[2] & PROT_EXEC && !failed)
        guest_mapped(cpu, (uint64_t)result, a[1], a[3] & MAP_ANONYMOUS ? -1 : (int)a[4], a[5]);
    else
        names_returned(cpu, number, a, result);
}

void guest_install(qemu_plugin_id_t id, int argc, char **argv) {
    names_install(argc, argv);
    exec_install(argc, argv);
    qemu_plugin_register_vcpu_syscall_cb(id, call);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, returned);
}
