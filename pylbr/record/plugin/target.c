/* The architectures of guests.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <elf.h>
#include <string.h>

#include "aarch64.h"
#include "cost.h"
#include "decode.h"
#include "recorder.h"
#include "riscv64.h"
#include "target.h"

/* ---- x86-64 ---- */

/* What the decoder refuses, and what QEMU's user mode has no branch for, is none: a jump after it
 * counts as a gap. */
static unsigned x86_branch(const uint8_t *code, size_t size, uint64_t address, uint64_t *to) {
    struct x86_insn insn;
    *to = 0;
    if (x86_decode(code, size, &insn) != (int)size || insn.cls == LBR_EXCEPTION ||
        insn.cls == LBR_TSX_ABORT || insn.cls == X86_NO_BRANCH)
        return WIRE_NO_BRANCH;
    if (insn.cls == LBR_COND || insn.cls == LBR_NEAR_REL_JMP || insn.cls == LBR_NEAR_REL_CALL ||
        insn.cls == LBR_ZERO_CALL)
        *to = address + size + (uint64_t)insn.displacement;
    return insn.cls == LBR_ZERO_CALL ? LBR_NEAR_REL_CALL : insn.cls;
}

/* A frame's first word is the restorer's address; a plain call of the handler has none.
 * Layout of x86-64's rt_sigframe: restorer, ucontext (flags, link, stack, then the registers
 * in the order of gregs), siginfo. */
static int x86_signal(const uint64_t *registers, target_signal *signal) {
    enum { RSP = 4, RSI = 6, RDI = 7 };
    enum { FRAME_RIP = 8 + 40 + 16 * 8 };
    uint64_t restorer;
    if (guest_read(&restorer, registers[RSP], 8) || !guest_is_restorer(restorer) ||
        guest_read(&signal->address, registers[RSP] + FRAME_RIP, 8))
        return 0;
    signal->number = registers[RDI];
    signal->info = registers[RSI];
    return 1;
}

/* ---- AArch64 and RISC-V ---- */

/* A word of two or four bytes; a shorter one has zeros above. */
static uint32_t word_of(const uint8_t *code, size_t size) {
    uint32_t word = 0;
    memcpy(&word, code, size < 4 ? size : 4);
    return word;
}

static unsigned arm_branch(const uint8_t *code, size_t size, uint64_t address, uint64_t *to) {
    *to = 0;
    return size == 4 ? aarch64_branch(word_of(code, size), address, to) : WIRE_NO_BRANCH;
}

static unsigned riscv_branch(const uint8_t *code, size_t size, uint64_t address, uint64_t *to) {
    *to = 0;
    return riscv64_branch(word_of(code, size), address, to);
}

/* No model of prices: pylbr asks for none. */
static unsigned one_cycle(const uint8_t *code, size_t size) {
    return 1;
}

/* A handler returns to the two instructions of a sigreturn; a plain call of it does not.  The frame
 * lies at SP: siginfo, 128 bytes, which QEMU fills in only for handlers with SA_SIGINFO, and then
 * ucontext: flags, link, stack and signal set, 176 bytes, and the registers. */
static int frame_signal(const uint64_t *arguments, uint64_t sp, uint64_t returns_to,
                        const uint32_t sigreturn[2], unsigned pc, target_signal *signal) {
    enum { SIGINFO = 128, BEFORE_REGISTERS = 176 };
    uint32_t code[2];
    if (guest_read(code, returns_to, sizeof code) || memcmp(code, sigreturn, sizeof code) ||
        guest_read(&signal->address, sp + SIGINFO + BEFORE_REGISTERS + pc, 8))
        return 0;
    signal->number = arguments[0];
    signal->info = arguments[1] == sp ? sp : 0;
    return 1;
}

/* QEMU keeps 16 registers of 32 bits before those of 64 (struct CPUArchState); in the frame fault
 * address, 31 registers and SP come before PC. */
static int arm_signal(const uint64_t *registers, target_signal *signal) {
    enum { BEFORE = 8, LR = 30, SP = 31, PC = 8 + 31 * 8 + 8 };
    static const uint32_t sigreturn[2] = {0xd2801168, 0xd4000001}; /* mov x8, #139; svc #0 */
    const uint64_t *x = registers + BEFORE;
    return frame_signal(x, x[SP], x[LR], sigreturn, PC, signal);
}

/* In the frame PC is the first. */
static int riscv_signal(const uint64_t *registers, target_signal *signal) {
    enum { RA = 1, SP = 2, A0 = 10, PC = 0 };
    static const uint32_t sigreturn[2] = {0x08b00893, 0x00000073}; /* li a7, 139; ecall */
    return frame_signal(registers + A0, registers[SP], registers[RA], sigreturn, PC, signal);
}

/* Linux's numbers for all newer architectures (asm-generic/unistd.h). */
#define GENERIC_CALLS                                                                             \
    { .mmap = 222, .mprotect = 226, .rt_sigaction = 134, .rt_sigreturn = 139, .mremap = 216,      \
      .clone = 220, .execve = 221, .execveat = 281, .write = 64, .open = -1, .close = 57,         \
      .prctl = 167, .openat = 56 }

static const target targets[] = {
    {.name = "x86_64", .program = "an x86-64", .machine = EM_X86_64, .restorer = 1,
     .branch = x86_branch, .cost = instruction_cost, .signal = x86_signal,
     .calls = {.mmap = 9, .mprotect = 10, .rt_sigaction = 13, .rt_sigreturn = 15, .mremap = 25,
               .clone = 56, .execve = 59, .execveat = 322, .write = 1, .open = 2, .close = 3,
               .prctl = 157, .openat = 257}},
    {.name = "aarch64", .program = "an AArch64", .machine = EM_AARCH64, .branch = arm_branch,
     .cost = one_cycle, .signal = arm_signal, .calls = GENERIC_CALLS},
    {.name = "riscv64", .program = "a RISC-V", .machine = EM_RISCV, .branch = riscv_branch,
     .cost = one_cycle, .signal = riscv_signal, .calls = GENERIC_CALLS},
};

const target *guest = &targets[0];

int target_install(const char *name) {
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (!strcmp(targets[i].name, name)) {
            guest = &targets[i];
            return 1;
        }
    return 0;
}
