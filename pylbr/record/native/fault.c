/* Signals that reach the program through the blob: ticks, and faults.
 *
 * A fault in a window goes back to the program's own code, which faults again there: the kernel
 * then makes the frame that the program's handler expects, with its own address, stack and mask.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "blob.h"

#define SA_RESETHAND 0x80000000u

/* SA_RESETHAND has put the default in place of the handler; the fault is yet to come. */
static void install_again(u32 slot, int number) {
    const struct slot *s = &state.slots[slot];
    struct action action = {(u64)handlers + (u64)slot * HANDLER_SIZE, s->flags | SA_SIGINFO,
                            s->restorer, s->mask};
    kernel_sigaction(number, &action, 0, 8);
}

/* The blob has read code that is not there: the program has jumped to nowhere. */
static struct lane *lane_of_dispatch(const struct ucontext *uc) {
    u64 offset = uc->regs.rsp - state.lanes, at = offset % sizeof(struct lane);
    if (offset >= state.lane_count * sizeof(struct lane) || at >= LANE_STACK ||
        uc->regs.rip < state.code_start || uc->regs.rip >= state.code_end)
        return NULL;
    return (struct lane *)(state.lanes + offset - at);
}

/* Make the frame the program's own again.  0: the fault was not in a window. */
static int roll_back(struct ucontext *uc) {
    u32 region;
    u64 pc;
    struct lane *lane = lane_holding(uc->regs.rip, &region);
    if (lane) {
        pc = origin_of(lane, region, uc->regs.rip);
    } else if ((lane = lane_of_dispatch(uc))) {
        pc = lane->wanted;
        store_registers(&uc->regs, &lane->regs);
        uc->regs.rsp = lane->rsp;
    } else {
        return 0;
    }
    uc->regs.rip = pc;
    uc->mask = lane->thread->uc.mask;
    lane->thread->fault_rip = pc;
    lane->thread->fault_rcx = uc->regs.rcx;
    window_close(lane, pc, END_FAULT);
    lane_release(lane);
    return 1;
}

static u64 fault(const struct siginfo *info, struct ucontext *uc, u32 slot) {
    if (state.pkeys)
        write_pkru(0);
    if (!roll_back(uc))
        return state.slots[slot].handler;
    if (state.slots[slot].flags & SA_RESETHAND)
        install_again(slot, info->signo);
    if (info->code <= 0) /* sent, not caused: it would not come again */
        raise_again(info->signo);
    return 0;
}

/* Where to continue: the program's handler, or 0 for rt_sigreturn. */
__attribute__((used)) u64 received(const struct siginfo *info, struct ucontext *uc, u32 slot) {
    if (state.slots[slot].number != SIGNAL_TICK)
        return fault(info, uc, slot);
    if (info->code != POLL_IN && info->code != TICK_CODE) {
        u64 handler = state.slots[slot].handler;
        return handler > 1 ? handler : 0;
    }
    tick(info, uc);
    return 0;
}
