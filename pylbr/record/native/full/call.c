/* System calls: the program's own, made with its registers, stack and signal mask.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "flow.h"

#define CALL_LENGTH 2u

enum {
    CALL_MMAP = 9, CALL_MPROTECT = 10, CALL_MUNMAP = 11, CALL_SIGACTION = 13, CALL_SIGRETURN = 15,
    CALL_MREMAP = 25, CALL_SHMAT = 30, CALL_CLONE = 56, CALL_FORK = 57, CALL_VFORK = 58,
    CALL_EXECVE = 59, CALL_MODIFY_LDT = 154, CALL_PRCTL = 157, CALL_ARCH_PRCTL = 158,
    CALL_REMAP = 216, CALL_VM_WRITEV = 311, CALL_SECCOMP = 317, CALL_EXECVEAT = 322,
    CALL_PKEY_MPROTECT = 329, CALL_PKEY_ALLOC = 330, CALL_CLONE3 = 435
};
#define PR_SET_SECCOMP 22u
#define PR_SET_SYSCALL_USER_DISPATCH 59u
#define ARCH_FIRST_SHADOW_STACK 0x5001u
#define MAP_FIXED 0x10u
#define CLONE_VM 0x100u
#define CLONE_VFORK 0x4000u

u32 calling;

/* Whether the recorder's own calls, or its code, may not work after this one. */
static int is_refused(u64 number) {
    return number == CALL_SECCOMP || number == CALL_MODIFY_LDT || number == CALL_VM_WRITEV ||
           number == CALL_PKEY_MPROTECT || number == CALL_PKEY_ALLOC ||
           (number == CALL_PRCTL &&
            (cpu.rdi == PR_SET_SECCOMP || cpu.rdi == PR_SET_SYSCALL_USER_DISPATCH)) ||
           (number == CALL_ARCH_PRCTL && cpu.rdi >= ARCH_FIRST_SHADOW_STACK);
}

static int holds_code(u64 start, u64 size) {
    struct full_shared *s = shared();
    for (u64 i = 0; i < s->range_count; i++)
        if (s->ranges[i].start < start + size + 4096 && start < s->ranges[i].end)
            return 1;
    return 0;
}

/* Copies are of code as it is: forget them where it may become something else. */
static void guard_code(u64 number) {
    int changes = number == CALL_MPROTECT || number == CALL_MUNMAP || number == CALL_MREMAP ||
                  (number == CALL_MMAP && cpu.r10 & MAP_FIXED) ||
                  (number == CALL_SHMAT && cpu.rsi) || number == CALL_REMAP;
    u64 size = number == CALL_SHMAT ? 1ul << 40 : cpu.rsi;
    u64 start = number == CALL_SHMAT ? cpu.rsi : cpu.rdi;
    if (!changes)
        return;
    if (holds_code(start, size) || (number == CALL_MREMAP && holds_code(cpu.r8, cpu.rdx)))
        forget_code();
    forget_ranges();
}

static __attribute__((noreturn)) void call_ended(void) {
    cpu.rcx = wanted + CALL_LENGTH;
    cpu.r11 = cpu.rflags;
    go_to(wanted + CALL_LENGTH);
}

__attribute__((used)) void call_over(void) {
    shared()->executed = 0;
    call_ended();
}

__attribute__((used)) void fork_over(void) {
    shared()->forks++;
    if (!full.handled)
        call3(14, 2, (u64)&full_mask, 0);
    call_ended();
}

/* The program's call with its registers: the kernel reports what is wrong with it. */
static __attribute__((noreturn)) void make_call(u32 way) {
    word(way);
    if (full.handled)
        safe_call();
    plain_call();
}

#define EFAULT 14
#define NO_SUCH_HOW 99ul

/* Whether eight bytes can be read: the kernel looks at them before it refuses the call.  0 would
 * stand for no set of signals. */
static int is_readable(u64 address) {
    return call3(14, NO_SUCH_HOW, address ? address : 1, 0) != -EFAULT;
}

/* Of clone and its kind: 1 another process, 0 a thread. */
static int is_process(u64 number) {
    u64 flags = number == CALL_CLONE    ? cpu.rdi
                : number == CALL_CLONE3 ? *(const u64 *)cpu.rdi
                                        : 0;
    return !(flags & CLONE_VM) || flags & CLONE_VFORK;
}

static __attribute__((noreturn)) void fork(u64 pc, u64 number, u32 way) {
    if (number == CALL_CLONE3 && !is_readable(cpu.rdi))
        make_call(way);
    if (!is_process(number))
        stop(STOP_THREAD, pc);
    word(way);
    child_pc = pc + CALL_LENGTH;
    if (!full.handled)
        call3(14, 0, 0, (u64)&full_mask);
    fork_call();
}

/* As the kernel would: SIGSEGV after the call.  Its handler gets the program's registers. */
static __attribute__((noreturn)) void bad_return(u32 way) {
    word(way);
    if (!full.handled)
        call3(14, 0, 0, (u64)&full_mask);
    safe_call();
}

/* A copy of the frame leads back into a copy of the code, with all signals blocked: the program's
 * own need not be writable. */
static __attribute__((noreturn)) void signal_return(u32 way) {
    static struct { u64 restorer; struct ucontext uc; } frame;
    struct ucontext *uc = &frame.uc;
    enum stop why = STOP_NONE;
    if (!is_readable(program_rsp) || !is_readable(program_rsp + sizeof *uc - 8))
        bad_return(way);
    copy(uc, (const void *)program_rsp, sizeof *uc);
    u64 pc = uc->regs.rip;
    word(way);
    word(WIRE_EVENT | WIRE_SIGRETURN);
    full_mask = uc->mask;
    wanted = pc;
    go = trace_at(pc, &why);
    if (!go) {
        hand_over();
        shared()->stopped_at = pc;
        shared()->stopped = (u32)why;
        is_over = why != STOP_NOWHERE;
        go = pc;
    }
    if (full.handled && !is_over)
        uc->mask |= ~FAULT_MASK;
    uc->regs.rip = (u64)reentry;
    call_return(uc);
}

void system_call(u64 pc, u32 way) {
    u64 number = cpu.rax;
    wanted = pc;
    calling = way;
    if (is_refused(number))
        stop(STOP_CALL, pc);
    guard_code(number);
    if (number == CALL_SIGACTION) {
        word(way);
        cpu.rax = (u64)sigaction((int)cpu.rdi, cpu.rsi, cpu.rdx, cpu.r10);
        call_ended();
    }
    if (number == CALL_SIGRETURN)
        signal_return(way);
    if (number == CALL_CLONE || number == CALL_CLONE3 || number == CALL_FORK || number == CALL_VFORK)
        fork(pc, number, way);
    if (number == CALL_EXECVE || number == CALL_EXECVEAT)
        shared()->executed = 1;
    make_call(way);
}
