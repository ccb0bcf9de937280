/* Every branch of a program: its code runs in copies that stay, linked to each other.
 *
 * A trace is a stretch of code from where a jump arrived, through branches that are not taken and
 * jumps whose target is known, to where it is left.  Each way out of it has a number, which it
 * logs: numbers of ways out, one after the other, are all that happened.  `shared.exits` lists which
 * blocks, as wire.h has them, a way out stands for.
 *
 * Invariants, which tests hold:
 *  - one thread; what cannot be followed (`enum stop`) continues natively, and for good;
 *  - general registers only; the program's code runs with its own RSP, red zone and flags;
 *  - while copied code runs, every signal but those of faults is blocked if the program has a
 *    handler.  They are let through where a trace has ended, with the program's own registers;
 *  - a copy is made of private, unwritable memory of files alone, and is thrown away before a
 *    system call that may change it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_NATIVE_FULL_H
#define PYLBR_NATIVE_FULL_H

#include "abi.h"
#include "wire.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

/* ---- shared with pylbr ---- */

#define FULL_BLOCKS (1u << 20)
#define FULL_LENGTHS (1u << 24)
#define FULL_EXITS (1u << 21)
#define FULL_RING (1u << 21) /* words */
#define FULL_LOG (1u << 15)  /* words that copied code writes before the ring gets them */

/* Why the program continues natively, and unrecorded. */
enum stop {
    STOP_NONE = 0,
    STOP_ASKED = 1,    /* pylbr takes no more */
    STOP_THREAD = 2,   /* a second thread */
    STOP_WRITABLE = 3, /* code that can be written, or is of no file */
    STOP_CLOSED = 4,   /* a restartable sequence */
    STOP_UNKNOWN = 5,  /* an instruction that is not copied */
    STOP_FAR = 6,      /* code out of reach of a region */
    STOP_CALL = 7,     /* a system call after which the recorder's own would not be safe */
    STOP_ROOM = 8,     /* tables are full */
    STOP_NOWHERE = 9,  /* code that is not mapped: a fault follows, which may bring it back */
    STOP_TRAP = 10     /* a trap that is not understood */
};

struct way { u32 first, count; }; /* blocks */

struct full_shared {
    u32 stop;           /* by pylbr */
    u32 stopped;        /* enum stop */
    u64 stopped_at;
    u32 executed;       /* an execve has begun, and not failed */
    u32 forks;
    u32 asked, answered;/* for ranges as they are now */
    u32 next_block, next_length, next_exit, reserved;
    u64 written, read;  /* words of the ring */
    u64 version, range_count;
    struct range ranges[NATIVE_RANGES];
};

/* Below 2 GiB, so that copied code reaches it without a register: words of the log end here.
 * `pos` is negative, in bytes, and 0 when the log is full. */
struct low {
    i64 pos;
    u64 rcx, rax, target, go, exit, dispatch;
};

/* Filled in by pylbr. */
struct full_state {
    u64 shared, blocks, lengths, exits, ring, low, near, code; /* addresses; near, code: hash */
    u64 pc;             /* where the program begins */
    u64 pid;
    u64 region_count, slice;
    u64 regions[NATIVE_REGIONS];
    u64 code_start, code_end;
    u64 handled;        /* whether the program has had a handler */
    u64 private;        /* memory of the tables below */
};

/* ---- private ---- */

enum way_kind { WAY_DIRECT, WAY_INDIRECT, WAY_CALL, WAY_FAULT, WAY_STOP };

struct exit {
    u64 to;
    u32 jump;          /* its rel32, from the region's start; 0: it has none */
    u8 region, kind, why, reserved;
};

struct origin { u64 copy, pc; u32 block, first; };

struct trace { u64 pc, copy; };

#define TRACES (1u << 18)
#define ORIGINS (1u << 22)
#define NEAR 65536u
struct tables {
    struct exit exits[FULL_EXITS];
    struct trace traces[TRACES];
    struct origin origins[ORIGINS];
};

struct registers {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax, rflags;
};

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

struct siginfo { int signo, error, code, pad; u64 address; };

struct action { u64 handler, flags, restorer, mask; };
struct asked { struct action action; u64 number; }; /* of rt_sigaction, by the program */

#define SA_SIGINFO 4u
#define SA_RESTORER 0x04000000u
#define SA_NODEFER 0x40000000u
/* SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS */
#define FAULT_MASK (1ul << 3 | 1ul << 4 | 1ul << 6 | 1ul << 7 | 1ul << 10 | 1ul << 30)

extern struct full_state full;
extern struct registers cpu; /* the program's, while the blob runs */
extern u64 program_rsp, go, child_pc;
extern u64 full_mask; /* signals that the program has blocked */

static inline struct full_shared *shared(void) { return (struct full_shared *)full.shared; }
static inline struct low *low(void) { return (struct low *)full.low; }
static inline struct tables *tables(void) { return (struct tables *)full.private; }

static inline void copy(void *to, const void *from, u64 size) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

static inline void clear(void *at, u64 words) {
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(0ul) : "memory");
}

static inline long call3(long number, u64 a, u64 b, u64 c) {
    long result;
    register u64 r10 __asm__("r10") = 8; /* bytes of a signal set, where it is one */
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

/* log.c */
void word(u32 value);
void event(u32 which, u64 address);
void hand_over(void);
const struct range *range_at(u64 address);
void forget_ranges(void);
/* trace.c */
u64 trace_at(u64 pc, enum stop *why); /* address of its copy; 0: why */
void forget_traces(void);
const struct origin *origin_of(u64 address);
u32 new_way(u32 first, u32 count, struct exit x);
/* flow.c */
__attribute__((noreturn)) void go_to(u64 pc);
__attribute__((noreturn)) void stop(enum stop why, u64 pc);
/* call.c */
__attribute__((noreturn)) void system_call(u64 pc, u32 number);
/* signal.c */
void watch_faults(void);
long sigaction(int number, u64 act, u64 old, u64 size);
int is_child(void);
/* entry.S */
__attribute__((noreturn)) void resume(void);
__attribute__((noreturn)) void resume_open(void);
__attribute__((noreturn)) void safe_point(void);
__attribute__((noreturn)) void safe_call(void);
__attribute__((noreturn)) void plain_call(void);
__attribute__((noreturn)) void fork_call(void);
__attribute__((noreturn)) void call_return(const struct ucontext *frame);
void dispatch_entry(void), restorer(void);
extern u8 handlers[];
extern u8 reentry[] __attribute__((visibility("hidden"))); /* else compared with a table's */
extern u8 safe_point_open[], safe_point_closed[];
extern u8 safe_call_open[], call_made[], call_done[], call_saved[], call_closed[];
extern u8 fork_open[], fork_made[], fork_done[], fork_saved[], fork_closed[];

#endif
