/* The blob: what runs inside the recorded program.
 *
 * Invariants, which tests hold:
 *  - general registers only: vector, mask and x87 registers belong to the program;
 *  - no system call but rt_sigreturn, so that no seccomp filter is ever in the way; rt_sigaction
 *    only where the program has called it, or to put its one-shot handler back;
 *  - no allocation, no lock that is held across the program's code, no thread-local storage,
 *    no FS or GS;
 *  - while a window runs, every signal but those of faults is blocked: a handler of the program
 *    never sees an address or a stack that is not its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_NATIVE_BLOB_H
#define PYLBR_NATIVE_BLOB_H

#include "abi.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* ---- the kernel's signal frame (arch/x86/include/uapi/asm/sigcontext.h, ucontext.h) ---- */

struct gregs {
    u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
    u16 cs, gs, fs, ss;
    u64 err, trapno, oldmask, cr2, fpstate, reserved[8];
};

struct ucontext {
    u64 flags, link;
    u64 stack[3];
    struct gregs regs;
    u64 mask;
};

struct siginfo {
    int signo, error, code, pad;
    u64 band; /* SIGIO and its kind; the address of a fault */
    int fd;
};

/* struct kernel_sigaction */
struct action { u64 handler, flags, restorer, mask; };

#define SA_SIGINFO 4u
#define SA_RESTORER 0x04000000u
#define SA_ONSTACK 0x08000000u
#define SA_RESTART 0x10000000u
/* SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: blocked, they would kill. */
#define FAULT_MASK (1ul << 3 | 1ul << 4 | 1ul << 6 | 1ul << 7 | 1ul << 10 | 1ul << 30)
#define SIGNAL_TICK 23
#define POLL_IN 1

#define FP_MAGIC1 0x46505853u
#define FP_LEGACY 576u /* the FXSAVE area and the XSAVE header */
struct fpstate {
    u8 legacy[464];
    u32 magic1, extended_size;
    u64 xfeatures;
    u32 xstate_size, padding[7];
    u64 header[8];
};

#define ALTERNATE_STACK 65536u /* handlers of the program with SA_ONSTACK run there, too */

/* A thread's area.  Its frame is saved when a window ends; rt_sigreturn makes it the program's
 * state.  A thread without an alternate stack gets one here, for its RSP need not be a stack. */
struct thread {
    u8 stack[ALTERNATE_STACK];
    u64 ended;           /* TSC at the end of the last window */
    u64 rest;            /* cycles to leave the program alone from then on */
    u64 weight;          /* nanoseconds that no stack stands for yet */
    u64 fault_rip, fault_rcx; /* where a fault has ended a window; rip 0: the thread is past it */
    u64 restorer;        /* struct rt_sigframe begins here */
    struct ucontext uc;
    u8 fpstate[] __attribute__((aligned(64)));
};

/* ---- translated code ---- */

enum exit_kind { EXIT_GO_ON, EXIT_TAKEN, EXIT_INDIRECT, EXIT_CUT };

struct block {
    u64 pc;
    u8 *code;            /* its source bytes lie after it */
    u32 origins;         /* first of its instructions in lane.origins */
    u16 size, count;     /* bytes, instructions */
    u16 region;
    u16 code_size;
    u32 reserved;
};

struct exit {
    u64 from, to;
    struct block *next;
    u8 kind, cls, end;
};

/* Offsets of an instruction in the block and of its copy. */
struct origin { u16 source, copy; };

#define LANE_BLOCKS 16384u
#define LANE_INDEX 32768u /* hash table: number of a block, + 1 */
#define LANE_EXITS 32768u
#define LANE_ORIGINS 131072u
#define LANE_STACK 24576u /* a signal frame fits, too */

/* Registers as dispatch_entry pushes them; `leave` and `face` are pushed by a face's thunk. */
struct registers {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax, rflags;
    u64 leave, face;
};

/* A lane is what one thread at a time makes windows with: nothing in it needs a lock. */
struct lane {
    u8 stack[LANE_STACK];
    struct registers regs;           /* top of the stack */
    u32 number, failed;              /* failed: enum end of the last translation that did not work */
    u64 epoch, generation;           /* of the fork page, of the ranges */
    u32 flushes, reserved;
    struct thread *thread;
    u32 key, count, blocks;          /* blocks: of this window or gap */
    u32 left, gap;                   /* windows to make, this one too; branches before it */
    u64 part;                        /* nanoseconds that a window stands for */
    u64 all_blocks;                  /* of this tick, before this window or gap */
    u32 pkru;
    u64 began, deadline;
    u64 wanted, rsp;                 /* block that is looked for; the program's stack pointer */
    u64 from[NATIVE_DEPTH], to[NATIVE_DEPTH];
    u8 classes[NATIVE_DEPTH];
    u64 used[NATIVE_REGIONS];        /* bytes of its slice of each region */
    u32 block_count, exit_count, origin_count;
    struct exit exits[LANE_EXITS];
    struct origin origins[LANE_ORIGINS];
    struct block table[LANE_BLOCKS];
    u16 index[LANE_INDEX];
};

/* First page of a lane's slice of a region: what copied code reaches relative to RIP. */
struct face {
    u64 stack;     /* &lane->regs + 1 */
    u64 self;
    u64 leave;     /* thunk: back into copied code */
    u64 dispatch;  /* dispatch_entry */
    u64 rsp, go;   /* the program's stack pointer; where `leave` jumps */
    u64 target;    /* of an indirect branch */
    u64 scratch;   /* the program's RCX */
    u64 exit;      /* number */
};
#define FACE_SIZE 4096u
#define FACE_ENTER 4096u /* thunks, on the next page: stores into code cost much */
#define FACE_LEAVE 4160u
#define FACE_CODE 4352u

extern struct state state;

static inline u32 read_pkru(void) {
    u32 value;
    __asm__ volatile("rdpkru" : "=a"(value) : "c"(0) : "rdx");
    return value;
}

static inline void write_pkru(u32 value) {
    __asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static inline struct shared *shared(void) { return (struct shared *)state.shared; }
static inline struct fork_page *fork_page(void) { return (struct fork_page *)state.fork_page; }

static inline u64 tsc(void) {
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}

static inline void add(u64 *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

static inline void copy(void *to, const void *from, u64 size) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

/* ranges.c */
const struct range *range_at(u64 address);
/* lane.c */
struct lane *lane_take(void);
struct face *lane_face(const struct lane *lane, u32 region); /* as it is written */
u64 lane_address(const struct lane *lane, u32 region);       /* as it executes */
void lane_flush(struct lane *lane);
void lane_release(struct lane *lane);
struct lane *lane_holding(u64 address, u32 *region);
/* translate.c */
struct block *translate(struct lane *lane, u64 pc);
struct block *block_at(struct lane *lane, u64 pc);
int block_holds(const struct block *block);
u64 origin_of(struct lane *lane, u32 region, u64 address);
/* window.c */
void tick(const struct siginfo *info, struct ucontext *uc);
void window_run(struct lane *lane, struct block *block, u64 rsp);
__attribute__((noreturn)) void window_end(struct lane *lane, u64 pc, u64 rsp, enum end why);
void window_close(struct lane *lane, u64 pc, enum end why);
void store_registers(struct gregs *to, const struct registers *from);
/* ring.c */
void ring_write(const struct lane *lane, u64 pc, enum end why, u64 kept);
/* entry.S */
__attribute__((noreturn)) void resume(struct registers *regs);
__attribute__((noreturn)) void resume_signal(void *frame, void *fpstate, u64 xfeatures, u32 *busy,
                                             u32 pkru, u32 pkeys);
void load_vectors(const void *fpstate, u64 xfeatures);
void dispatch_entry(void);
void restorer(void);
extern u8 handlers[];
long kernel_sigaction(int number, const struct action *act, struct action *old, u64 size);
void raise_again(int number);

#endif
