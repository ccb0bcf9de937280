/* rt_sigaction in the program's name, for the signals that the blob stands before.
 *
 * pylbr has put a jump to sigaction_entry in place of the program's system call.  Nothing is
 * kept here of what is installed: the kernel holds the address of a handler of entry.S, whose slot
 * holds what the program had asked for.  So threads, forks and vforks, whose dispositions
 * differ, need no care.  A slot is written once.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "blob.h"

static int is_guarded(int number) {
    return number == SIGNAL_TICK || number == 4 || number == 7 || number == 8 || number == 11;
}

static int same(const struct slot *slot, int number, const struct action *action) {
    return __atomic_load_n(&slot->ready, __ATOMIC_ACQUIRE) && slot->number == (u32)number &&
           slot->handler == action->handler && slot->flags == action->flags &&
           slot->restorer == action->restorer && slot->mask == action->mask;
}

/* Number of the slot for an action; NATIVE_SLOTS when there is no room. */
static u64 slot_for(int number, const struct action *action) {
    u64 count = __atomic_load_n(&state.slot_count, __ATOMIC_ACQUIRE);
    for (u64 i = 0; i < count && i < NATIVE_SLOTS; i++)
        if (same(&state.slots[i], number, action))
            return i;
    u64 i = __atomic_fetch_add(&state.slot_count, 1, __ATOMIC_RELAXED);
    if (i >= NATIVE_SLOTS)
        return NATIVE_SLOTS;
    struct slot *slot = &state.slots[i];
    slot->handler = action->handler;
    slot->flags = action->flags;
    slot->restorer = action->restorer;
    slot->mask = action->mask;
    slot->number = (u32)number;
    __atomic_store_n(&slot->ready, 1, __ATOMIC_RELEASE);
    return i;
}

/* What the kernel is to hold for an action of the program. */
static void guard(int number, struct action *action) {
    int tick = number == SIGNAL_TICK;
    if (action->handler <= 1 && !tick)
        return;
    u64 slot = slot_for(number, action);
    if (slot == NATIVE_SLOTS)
        return;
    action->handler = (u64)handlers + slot * HANDLER_SIZE;
    action->flags |= SA_SIGINFO;
    if (tick) {
        action->flags = SA_SIGINFO | SA_ONSTACK | SA_RESTORER | (action->flags & SA_RESTART);
        action->restorer = (u64)restorer;
        action->mask = ~FAULT_MASK;
    }
}

/* What the program had asked for where the kernel holds a handler of the blob. */
static void unguard(struct action *action) {
    u64 slot = (action->handler - (u64)handlers) / HANDLER_SIZE;
    if (action->handler < (u64)handlers || slot >= NATIVE_SLOTS)
        return;
    const struct slot *s = &state.slots[slot];
    *action = (struct action){s->handler, s->flags, s->restorer, s->mask};
}

__attribute__((used)) long sigaction(int number, const struct action *act, struct action *old,
                                     u64 size) {
    if (size != 8 || !is_guarded(number))
        return kernel_sigaction(number, act, old, size);
    struct action now = {0}, before;
    if (act) {
        now = *act;
        guard(number, &now);
    }
    long result = kernel_sigaction(number, act ? &now : 0, &before, size);
    if (!result && old) {
        unguard(&before);
        *old = before;
    }
    return result;
}
