/* Signals: the kernel calls the blob, which lets the program's handler run in copied code.
 *
 * The kernel keeps which signal has a handler of the blob; its slot keeps what the program asked
 * for, and is written once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "flow.h"

#define BIT(number) (1ul << ((number) - 1))
#define FLAG_TRAP 0x100u
#define FLAG_DIRECTION 0x400u
#define FLAG_RESUME 0x10000u

static struct asked slots[NATIVE_SLOTS];
static u64 slot_count;

static long kernel_sigaction(int number, u64 act, u64 old) {
    return call3(13, (u64)number, act, old);
}

int is_child(void) { return (u64)call3(39, 0, 0, 0) != full.pid; }

/* ---- what the program asks for ---- */

/* SIGILL, SIGBUS, SIGFPE, SIGSEGV: that they come is a branch, also where they kill. */
static int is_guarded(int number) {
    return number == 4 || number == 7 || number == 8 || number == 11;
}

static u64 slot_for(int number, const struct action *a) {
    for (u64 i = 0; i < slot_count; i++) {
        const struct asked *s = &slots[i];
        if (s->number == (u64)number && s->action.handler == a->handler &&
            s->action.flags == a->flags && s->action.restorer == a->restorer &&
            s->action.mask == a->mask)
            return i;
    }
    if (slot_count == NATIVE_SLOTS)
        return NATIVE_SLOTS;
    slots[slot_count] = (struct asked){*a, (u64)number};
    return slot_count++;
}

static int guard(int number, const struct action *wanted_action) {
    u64 slot = slot_for(number, wanted_action);
    if (slot == NATIVE_SLOTS)
        return 0;
    struct action a = *wanted_action;
    a.handler = (u64)handlers + slot * HANDLER_SIZE;
    a.flags |= SA_SIGINFO;
    a.mask |= ~FAULT_MASK;
    if (wanted_action->handler <= 1) {
        a.flags |= SA_RESTORER;
        a.restorer = (u64)restorer;
    }
    kernel_sigaction(number, (u64)&a, 0);
    return 1;
}

static void unguard(struct action *a) {
    u64 slot = (a->handler - (u64)handlers) / HANDLER_SIZE;
    if (a->handler >= (u64)handlers && slot < NATIVE_SLOTS)
        *a = slots[slot].action;
}

/* From now on signals are let through at safe points alone. */
static void begin_blocking(void) {
    u64 closed = ~FAULT_MASK;
    if (full.handled)
        return;
    call3(14, 2, (u64)&closed, (u64)&full_mask);
    full.handled = 1;
}

long sigaction(int number, u64 act, u64 old, u64 size) {
    struct action before, now;
    if (size != 8)
        return -22;
    long result = kernel_sigaction(number, 0, (u64)&before);
    if (!result && act)
        result = kernel_sigaction(number, act, 0); /* the kernel checks it */
    if (result)
        return result;
    if (act) {
        now = *(const struct action *)act;
        if (now.handler > 1)
            begin_blocking();
        if ((now.handler > 1 || (is_guarded(number) && !now.handler)) && !guard(number, &now)) {
            kernel_sigaction(number, (u64)&before, 0);
            stop(STOP_ROOM, wanted);
        }
    }
    if (!old)
        return 0;
    result = kernel_sigaction(number, 0, old); /* the kernel checks it */
    if (!result) {
        unguard(&before);
        *(struct action *)old = before;
    }
    return result;
}

void watch_faults(void) {
    for (int number = 1; number < 32; number++) {
        struct action a;
        if (is_guarded(number) && !kernel_sigaction(number, 0, (u64)&a) && !a.handler)
            guard(number, &a);
    }
}

/* ---- what comes ---- */

static void load(const struct gregs *from) {
    cpu = (struct registers){
        from->r15, from->r14, from->r13, from->r12, from->r11, from->r10, from->r9, from->r8,
        from->rdi, from->rsi, from->rbp, from->rbx, from->rdx, from->rcx, from->rax, from->rflags};
}

static void store(struct gregs *to) {
    to->r15 = cpu.r15, to->r14 = cpu.r14, to->r13 = cpu.r13, to->r12 = cpu.r12;
    to->r11 = cpu.r11, to->r10 = cpu.r10, to->r9 = cpu.r9, to->r8 = cpu.r8;
    to->rdi = cpu.rdi, to->rsi = cpu.rsi, to->rbp = cpu.rbp, to->rbx = cpu.rbx;
    to->rdx = cpu.rdx, to->rcx = cpu.rcx, to->rax = cpu.rax, to->rflags = cpu.rflags;
}

static int between(u64 address, const u8 *low, const u8 *high) {
    return address >= (u64)low && address < (u64)high;
}

/* Labels of a call in entry.S. */
struct stages { const u8 *open, *made, *done, *saved, *closed; };

/* The frame becomes one of the program at `wanted`, or after its system call. */
static void in_call(struct gregs *regs, const struct stages *at) {
    u64 rip = regs->rip;
    int restarts = rip == (u64)at->made && regs->rcx == (u64)at->done;
    if (rip <= (u64)at->made && !restarts) { /* not made yet */
        low()->pos -= 4;
        store(regs);
        regs->rip = wanted;
    } else {
        if (rip >= (u64)at->saved)
            store(regs);
        regs->rip = restarts ? wanted : wanted + 2;
        regs->rcx = wanted + 2;
        regs->r11 = regs->rflags;
        shared()->executed = 0;
    }
    event(WIRE_ASYNCHRONOUS, regs->rip);
}

static int in_blob(struct ucontext *uc) {
    const struct stages call = {safe_call_open, call_made, call_done, call_saved, call_closed};
    const struct stages fork = {fork_open, fork_made, fork_done, fork_saved, fork_closed};
    struct gregs *regs = &uc->regs;
    u64 rip = regs->rip;
    if (rip == (u64)safe_point_closed || rip == (u64)call_closed || rip == (u64)fork_closed)
        uc->mask = full_mask;
    if (between(rip, safe_point_open, safe_point_closed + 1)) {
        store(regs);
        regs->rip = wanted;
        event(WIRE_ASYNCHRONOUS, wanted);
    } else if (between(rip, safe_call_open, call_closed + 1)) {
        in_call(regs, &call);
    } else if (between(rip, fork_open, fork_closed + 1)) {
        in_call(regs, &fork);
    } else if (rip == (u64)reentry) { /* the kernel has not liked all of a frame */
        regs->rip = wanted;
        uc->mask = full_mask;
        event(WIRE_ASYNCHRONOUS, wanted);
    } else {
        return 0;
    }
    return 1;
}

/* A fault of copied code. */
static int in_copy(struct siginfo *info, struct ucontext *uc) {
    const struct origin *o = origin_of(uc->regs.rip);
    u32 number = o ? new_way(o->first, o->block - o->first + 1, (struct exit){.to = 0}) : 0;
    if (!number)
        return 0;
    word(number);
    event(WIRE_SYNCHRONOUS, o->pc);
    if (info->address == uc->regs.rip)
        info->address = o->pc;
    uc->regs.rip = o->pc;
    if (full.handled)
        uc->mask = full_mask;
    return 1;
}

/* `again`: the fault does not come by itself. */
static void die(int number, u64 pid, int again) {
    struct action none = {0, 0, 0, 0};
    kernel_sigaction(number, (u64)&none, 0);
    if (again)
        call3(200, pid, (u64)number, 0);
}

/* The program's handler runs natively. */
static u64 natively(int number, const struct siginfo *info, const struct ucontext *uc,
                    const struct action *a) {
    if (a->handler <= 1) {
        die(number, (u64)call3(186, 0, 0, 0), info->code <= 0);
        return 0;
    }
    u64 mask = uc->mask | a->mask | (a->flags & SA_NODEFER ? 0 : BIT(number));
    call3(14, 2, (u64)&mask, 0);
    return a->handler;
}

static int is_copy(u64 address) {
    for (u64 i = 0; i < full.region_count; i++)
        if (address - full.regions[i] < full.slice)
            return 1;
    return 0;
}

static int is_own(u64 address) { return address >= full.code_start && address < full.code_end; }

/* One that was sent and that is never blocked comes again at the next safe point. */
static void put_off(int number, const struct siginfo *info, struct ucontext *uc) {
    register u64 r10 __asm__("r10") = (u64)info;
    long result;
    uc->mask |= BIT(number);
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(297), "D"(full.pid), "S"(full.pid), "d"((u64)number), "r"(r10)
                     : "rcx", "r11", "memory");
}

static int is_fault(int number, const struct siginfo *info) {
    return info->code > 0 && (number == 5 || is_guarded(number));
}

/* Where to continue natively; 0: back to what was interrupted. */
__attribute__((used)) u64 received(struct siginfo *info, struct ucontext *uc, u32 slot, int number) {
    const struct action *a = &slots[slot].action;
    u64 rip = uc->regs.rip;
    if (is_over || is_child())
        return natively(number, info, uc, a);
    int sent = !is_fault(number, info), known = 0;
    if (sent && a->handler <= 1) { /* there may be no safe point */
        die(number, full.pid, info->code <= 0);
        return 0;
    }
    if (!is_copy(rip))
        known = in_blob(uc);
    else if (!sent)
        known = in_copy(info, uc);
    if (!known && sent && (is_copy(rip) || is_own(rip))) {
        put_off(number, info, uc);
        return 0;
    }
    if (!known && shared()->stopped == STOP_NOWHERE) {
        event(WIRE_SYNCHRONOUS, rip);
        shared()->stopped = 0;
        if (full.handled)
            uc->mask = full_mask;
        known = 1;
    }
    if (!known) {
        shared()->stopped = STOP_TRAP;
        shared()->stopped_at = rip;
        is_over = 1;
        hand_over();
        return natively(number, info, uc, a);
    }
    if (a->handler <= 1) {
        hand_over();
        die(number, full.pid, info->code <= 0 || is_own(rip));
        return 0;
    }
    full_mask = uc->mask | a->mask | (a->flags & SA_NODEFER ? 0 : BIT(number));
    load(&uc->regs);
    cpu.rdi = (u64)number;
    cpu.rsi = (u64)info;
    cpu.rdx = (u64)uc;
    cpu.rax = 0;
    cpu.rflags &= ~(u64)(FLAG_TRAP | FLAG_DIRECTION | FLAG_RESUME);
    program_rsp = (u64)uc - 8;
    go_to(a->handler);
}
