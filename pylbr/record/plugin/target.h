/* What depends on the guest's architecture.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_TARGET_H
#define PYLBR_TARGET_H

#include <stddef.h>
#include <stdint.h>

/* A signal's frame, as its handler finds it. */
typedef struct target_signal {
    uint64_t address; /* interrupted */
    uint64_t number;
    uint64_t info;    /* address of siginfo, 0 where the handler gets none */
} target_signal;

typedef struct target {
    const char *name;    /* as QEMU spells it */
    const char *program; /* with its article, for a reader */
    uint16_t machine;    /* e_machine */
    uint8_t restorer;    /* struct sigaction has a restorer, and a frame begins with it */
    /* Class of an instruction (enum lbr_class, WIRE_NO_BRANCH); *to is set for direct branches, else
     * to 0. */
    unsigned (*branch)(const uint8_t *code, size_t size, uint64_t address, uint64_t *to);
    /* Cycles of an instruction in the model of cost.h. */
    unsigned (*cost)(const uint8_t *code, size_t size);
    /* Whether registers, at a handler's first instruction, are those of a signal's delivery. */
    int (*signal)(const uint64_t *registers, target_signal *signal);
    struct {
        int mmap, mprotect, rt_sigaction, rt_sigreturn, mremap, clone, execve, execveat, write, open,
            close, prctl, openat;
    } calls; /* numbers of system calls, -1 where there is none */
} target;

#pragma GCC visibility push(hidden)
extern const target *guest;
/* Choose the guest's architecture by QEMU's name of it; 0 if it is not one of ours. */
int target_install(const char *name);
/* signals.c: an address that some sigaction() named as restorer. */
int guest_is_restorer(uint64_t address);
#pragma GCC visibility pop

#endif
