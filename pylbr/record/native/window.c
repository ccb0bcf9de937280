/* A window: `depth` accepted branches, from a tick or from the end of a gap.
 *
 * A tick makes `burst` windows.  In the gaps between them the thread stays in copied code, and
 * nothing is noted: a signal for each window would cost much more.  What ends a window early
 * ends the tick.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "blob.h"

/* ---- beginning ---- */

/* What rt_sigreturn needs of the kernel's frame; 0 if it is not one that the blob can rebuild. */
static int keep_frame(struct thread *thread, const struct ucontext *uc) {
    const struct fpstate *fp = (const struct fpstate *)uc->regs.fpstate;
    if (!fp || fp->magic1 != FP_MAGIC1 || fp->extended_size < FP_LEGACY + 4 ||
        offsetof(struct thread, fpstate) + fp->extended_size > state.thread_size)
        return 0;
    thread->uc = *uc;
    thread->uc.regs.fpstate = (u64)thread->fpstate;
    copy(thread->fpstate, fp, FP_LEGACY);
    u32 end = fp->extended_size - 4;
    *(u32 *)(thread->fpstate + end) = *(const u32 *)((const u8 *)fp + end);
    return 1;
}

static void load_registers(struct registers *to, const struct gregs *from) {
    to->r15 = from->r15, to->r14 = from->r14, to->r13 = from->r13, to->r12 = from->r12;
    to->r11 = from->r11, to->r10 = from->r10, to->r9 = from->r9, to->r8 = from->r8;
    to->rdi = from->rdi, to->rsi = from->rsi, to->rbp = from->rbp, to->rbx = from->rbx;
    to->rdx = from->rdx, to->rcx = from->rcx, to->rax = from->rax, to->rflags = from->rflags;
}

void store_registers(struct gregs *to, const struct registers *from) {
    to->r15 = from->r15, to->r14 = from->r14, to->r13 = from->r13, to->r12 = from->r12;
    to->r11 = from->r11, to->r10 = from->r10, to->r9 = from->r9, to->r8 = from->r8;
    to->rdi = from->rdi, to->rsi = from->rsi, to->rbp = from->rbp, to->rbx = from->rbx;
    to->rdx = from->rdx, to->rcx = from->rcx, to->rax = from->rax, to->rflags = from->rflags;
}

static void skip(enum skip why) { add(&shared()->skipped[why]); }

static void begin(struct lane *lane, struct thread *thread, u32 key, u64 began) {
    lane->thread = thread;
    lane->key = key;
    lane->count = lane->blocks = lane->gap = 0;
    lane->all_blocks = 0;
    lane->left = shared()->burst ? shared()->burst : 1;
    lane->part = shared()->period / lane->left;
    lane->began = began;
    lane->deadline = began + shared()->cycles_max;
    add(&shared()->ticks);
}

/* Program code whose trap flag is set is being stepped; a window would hide the steps. */
#define RFLAGS_TF 0x100u
#define CS_64 0x33u

#define SS_DISABLE 2u

/* rt_sigreturn sets the alternate stack that it finds in the frame. */
static void give_stack(struct thread *thread, struct ucontext *uc) {
    u64 *stack = uc->stack; /* address, flags, size */
    if ((u32)stack[1] & SS_DISABLE) {
        stack[0] = (u64)thread->stack;
        stack[1] = 0;
        stack[2] = ALTERNATE_STACK;
    }
}

#define EINTR 4u
#define MOV_EAX 0xb8u
#define SYSCALL 0x050fu

/* A tick of the timer has ended a system call that SA_RESTART does not restart: poll, nanosleep,
 * epoll_wait, ...  Its number is not in the frame; `mov $number, %eax` before it, as C libraries
 * have it, makes it again.  perf's ticks come in user mode only. */
static void restart_call(struct gregs *regs) {
    u64 rip = regs->rip;
    if (regs->rax != -(u64)EINTR || (rip & 4095) < 7 || !range_at(rip))
        return;
    const u8 *call = (const u8 *)(rip - 7);
    if (*call == MOV_EAX && *(const u16 *)(call + 5) == SYSCALL)
        regs->rip = (u64)call;
}

/* Whether a window has been rolled back to here, and the thread has not moved since.  Another one
 * would fault as the last did: where ticks come faster than the thread gets away, it never would.
 * RCX counts the rounds of a `rep` that continues. */
static int stands_at_fault(struct thread *thread, const struct gregs *regs) {
    if (thread->fault_rip == regs->rip && thread->fault_rcx == regs->rcx)
        return 1;
    thread->fault_rip = 0;
    return 0;
}

/* A tick.  Returns where there is no window. */
void tick(const struct siginfo *info, struct ucontext *uc) {
    u64 began = tsc();
    if (state.pkeys)
        write_pkru(0);
    u32 key = (u32)info->fd;
    if (key >= state.thread_count)
        return skip(SKIP_THREAD);
    if (info->code == TICK_CODE)
        restart_call(&uc->regs);
    struct thread *thread = (struct thread *)(state.threads + (u64)key * state.thread_size);
    thread->weight += shared()->period;
    give_stack(thread, uc);
    if (__atomic_load_n(&shared()->stopped, __ATOMIC_RELAXED))
        return skip(SKIP_STOPPED);
    if (state.slot_count > NATIVE_SLOTS)
        return skip(SKIP_HANDLERS);
    if (began - thread->ended < thread->rest)
        return skip(SKIP_RESTING);
    if (uc->regs.cs != CS_64 || uc->regs.rflags & RFLAGS_TF)
        return skip(SKIP_FRAME);
    if (!range_at(uc->regs.rip))
        return skip(SKIP_CODE);
    if (stands_at_fault(thread, &uc->regs))
        return skip(SKIP_FAULT);
    struct lane *lane = lane_take();
    if (!lane)
        return skip(SKIP_LANES);
    struct block *block = block_at(lane, uc->regs.rip);
    int kept = block && keep_frame(thread, uc);
    if (!kept) {
        lane_release(lane);
        return skip(block ? SKIP_FRAME : SKIP_CODE);
    }
    begin(lane, thread, key, began);
    load_registers(&lane->regs, &uc->regs);
    const struct fpstate *fp = (const struct fpstate *)uc->regs.fpstate;
    window_run(lane, block, uc->regs.rsp);
    load_vectors(fp, fp->xfeatures);
    resume(&lane->regs);
}

/* ---- block after block ---- */

/* Make `resume` continue in a block. */
void window_run(struct lane *lane, struct block *block, u64 rsp) {
    struct face *face = lane_face(lane, block->region);
    face->rsp = rsp;
    face->go = (u64)block->code;
    lane->regs.leave = face->leave;
}

static void next_stretch(struct lane *lane) {
    lane->all_blocks += lane->blocks;
    lane->blocks = 0;
}

/* A branch was taken. */
static void note(struct lane *lane, const struct exit *x, u64 to) {
    if (lane->gap) {
        if (!--lane->gap)
            next_stretch(lane);
        return;
    }
    if (!(shared()->accept >> x->cls & 1))
        return;
    u32 n = lane->count++;
    lane->from[n] = x->from;
    lane->to[n] = to;
    lane->classes[n] = x->cls;
}

/* ---- window after window ---- */

/* Hand the stack over; `kept`: nanoseconds of this tick that are the next windows'. */
static void hand_over(const struct lane *lane, u64 pc, enum end why, u64 kept) {
    add(&shared()->ended[why]);
    if (lane->count)
        ring_write(lane, pc, why, kept);
}

/* The share of the longest time of a tick after which no more windows begin: the last one is not
 * to be cut by the clock. */
#define BURST_SHARE 4u

static int is_last(const struct lane *lane) {
    return lane->left <= 1 || tsc() - lane->began > shared()->cycles_max / BURST_SHARE;
}

/* Gaps of one length would keep the step of a loop. */
static u32 gap(void) {
    u64 length = shared()->gap, random = tsc() * 0x9e3779b97f4a7c15u >> 32;
    return (u32)(length / 2 + (random * (length + 1) >> 32));
}

static void next_window(struct lane *lane, u64 pc) {
    lane->left--;
    hand_over(lane, pc, END_FULL, lane->left * lane->part);
    lane->count = 0;
    lane->gap = gap();
    next_stretch(lane);
}

#define CLOCK_BLOCKS 16u /* the clock is looked at once in so many */

static struct block *next_block(struct lane *lane, struct exit *x, u64 pc) {
    struct block *block = x->next;
    if (block && block->pc == pc && block_holds(block))
        return block;
    u32 flushes = lane->flushes;
    block = block_at(lane, pc);
    if (lane->flushes == flushes) /* `x` was not thrown away to make room */
        x->next = block;
    return block;
}

/* A block has ended. */
__attribute__((used)) void dispatch(struct registers *regs) {
    struct lane *lane = (struct lane *)((u8 *)regs - offsetof(struct lane, regs));
    struct face *face = (struct face *)regs->face;
    struct exit *x = &lane->exits[face->exit];
    u64 pc = x->kind == EXIT_INDIRECT ? face->target : x->to, rsp = face->rsp;
    lane->wanted = pc;
    lane->rsp = rsp;
    if (state.pkeys) {
        lane->pkru = read_pkru();
        write_pkru(0);
    }
    if (x->kind == EXIT_CUT)
        window_end(lane, pc, rsp, x->end);
    if (x->kind != EXIT_GO_ON)
        note(lane, x, pc);
    if (lane->count == shared()->depth) {
        if (is_last(lane))
            window_end(lane, pc, rsp, END_FULL);
        next_window(lane, pc);
    }
    if (++lane->blocks > shared()->blocks_max ||
        (lane->blocks % CLOCK_BLOCKS == 0 && tsc() > lane->deadline))
        window_end(lane, pc, rsp, END_LONG);
    struct block *block = next_block(lane, x, pc);
    if (!block)
        window_end(lane, pc, rsp, lane->failed);
    window_run(lane, block, rsp);
    if (state.pkeys)
        write_pkru(lane->pkru);
}

/* ---- end ---- */

/* Cycles that a window has cost: the counter runs on while another thread has the processor, so
 * no more than its blocks can have taken, some of them translated. */
#define BLOCK_CYCLES 1500u
static u64 cost(const struct lane *lane, u64 now) {
    u64 most = (lane->all_blocks + lane->blocks + 32ul) * BLOCK_CYCLES, taken = now - lane->began;
    return taken < most ? taken : most;
}

/* The end of a tick. */
void window_close(struct lane *lane, u64 pc, enum end why) {
    struct thread *thread = lane->thread;
    u32 made = !lane->gap;
    if (made)
        hand_over(lane, pc, why, 0);
    __atomic_fetch_add(&shared()->left_out, lane->left - made, __ATOMIC_RELAXED);
    thread->ended = tsc();
    thread->rest = (cost(lane, thread->ended) + shared()->tick_cost) * shared()->rest / 256;
}

/* Back to the program at `pc`. */
void window_end(struct lane *lane, u64 pc, u64 rsp, enum end why) {
    struct thread *thread = lane->thread;
    const struct fpstate *fp = (const struct fpstate *)thread->fpstate;
    window_close(lane, pc, why);
    store_registers(&thread->uc.regs, &lane->regs);
    thread->uc.regs.rip = pc;
    thread->uc.regs.rsp = rsp;
    resume_signal(&thread->uc, thread->fpstate, fp->xfeatures, &fork_page()->busy[lane->number],
                  lane->pkru, state.pkeys);
}
