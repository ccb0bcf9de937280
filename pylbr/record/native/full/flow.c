/* From the end of a trace to the next.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "flow.h"

u64 wanted;
int is_over;
static u32 flushes;

void forget_code(void) {
    forget_traces();
    flushes++;
}

/* The program continues natively, and for good. */
void stop(enum stop why, u64 pc) {
    hand_over();
    shared()->stopped_at = pc;
    __atomic_store_n(&shared()->stopped, (u32)why, __ATOMIC_RELEASE);
    is_over = 1;
    go = pc;
    if (full.handled)
        resume_open();
    resume();
}

/* The program continues natively where a fault follows. */
static __attribute__((noreturn)) void fall(u64 pc) {
    shared()->stopped_at = pc;
    shared()->stopped = STOP_NOWHERE;
    go = pc;
    resume();
}

static __attribute__((noreturn)) void refuse(enum stop why, u64 pc) {
    if (why == STOP_NOWHERE)
        fall(pc);
    stop(why, pc);
}

void go_to(u64 pc) {
    enum stop why;
    u64 copy = trace_at(pc, &why);
    if (!copy)
        refuse(why, pc);
    go = copy;
    resume();
}

static void link_direct(struct exit *x, u64 copy) {
    u64 at = full.regions[x->region] + x->jump;
    i64 distance = (i64)(copy - (at + 4));
    if (x->jump && distance == (int32_t)distance)
        *(u32 *)at = (u32)distance;
}

static void link_indirect(u64 target, u64 copy) {
    ((u64 *)full.near)[target & (NEAR - 1)] = -target;
    ((u64 *)full.code)[target & (NEAR - 1)] = copy;
}

/* A trace has been left by a branch to `pc`. */
static __attribute__((noreturn)) void arrive(struct exit *x, u64 pc) {
    enum stop why;
    u32 before = flushes;
    u64 copy = trace_at(pc, &why);
    if (!copy)
        refuse(why, pc);
    if (x->kind == WAY_INDIRECT)
        link_indirect(pc, copy);
    else if (before == flushes)
        link_direct(x, copy);
    go = copy;
    resume();
}

__attribute__((used)) void safe_done(void) { go_to(wanted); }

__attribute__((used)) void dispatch(void) {
    u32 number = (u32)low()->exit;
    struct exit *x = &tables()->exits[number];
    u64 pc = x->kind == WAY_INDIRECT ? low()->target : x->to;
    if (x->kind == WAY_DIRECT || x->kind == WAY_INDIRECT) {
        if (low()->pos)
            arrive(x, pc);
        hand_over();
        if (__atomic_load_n(&shared()->stop, __ATOMIC_RELAXED))
            stop(STOP_ASKED, pc);
        wanted = pc;
        if (full.handled)
            safe_point();
        arrive(x, pc);
    }
    word(number);
    if (x->kind == WAY_CALL)
        system_call(pc, number + 1);
    refuse((enum stop)x->why, pc);
}

/* The program's first instruction. */
__attribute__((used)) void started(void) {
    forget_traces();
    low()->pos = -(i64)FULL_LOG * 4;
    low()->dispatch = (u64)dispatch_entry;
    full.pid = (u64)call3(39, 0, 0, 0);
    watch_faults();
    go_to(full.pc);
}
