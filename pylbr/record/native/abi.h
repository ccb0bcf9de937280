/* What pylbr and the blob share: the memory of a recorded program that both read and write.
 *
 * `shared` and the ring are one anonymous file, mapped by the program, by every process that it
 * forks, and by pylbr, which checks whatever it reads there.  `state` is private to a process;
 * pylbr fills it in while the program is stopped.  `layout` in blob.c gives pylbr the offsets.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_NATIVE_ABI_H
#define PYLBR_NATIVE_ABI_H

#include <stddef.h>
#include <stdint.h>

#include "numbers.h"

#define NATIVE_DEPTH 32
#define NATIVE_RANGES 2048
#define NATIVE_REGIONS 8
#define NATIVE_LANES 32

/* si_code of ticks that pylbr's timer sends; perf's have POLL_IN. */
#define TICK_CODE (-0x504c)

/* Why a window ended.  A stack of fewer than `depth` branches is cut by one of the others. */
enum end {
    END_FULL = 0,      /* `depth` accepted branches */
    END_SYSCALL = 1,   /* a system call follows */
    END_UNKNOWN = 2,   /* an instruction that is not copied: unknown, privileged, INT n, ... */
    END_UNMAPPED = 3,  /* code that is not known to be executable, or out of reach of a region */
    END_CLOSED = 4,    /* code that may not be copied: RANGE_CLOSED */
    END_LONG = 5,      /* too many blocks or cycles */
    END_FAULT = 6,     /* the next instruction faults */
    END_KINDS = 7
};

/* Why a tick made no window. */
enum skip {
    SKIP_STOPPED = 0,   /* the recording has ended */
    SKIP_THREAD = 1,    /* no room for the thread */
    SKIP_RESTING = 2,   /* the share of time that windows may take is used up */
    SKIP_CODE = 3,      /* the program stands in code that is not known or not copied */
    SKIP_LANES = 4,     /* every lane is in use */
    SKIP_FRAME = 5,     /* a signal frame that is not understood, or 32-bit code */
    SKIP_HANDLERS = 6,  /* more handlers of faults than the blob can stand before */
    SKIP_FAULT = 7,     /* before an instruction that has just faulted in a window */
    SKIP_KINDS = 8
};

/* One stack, oldest branch first.  sequence: twice the number of times that this place of the ring
 * has been read, + 1 when it is filled. */
struct record {
    uint64_t sequence;
    uint64_t tsc;      /* at the end of the window */
    uint64_t ip;       /* where the program went on */
    uint64_t cost;     /* TSC cycles, from the tick to the end of the window */
    uint32_t key;      /* si_fd of the tick: which thread */
    uint32_t cpu;
    uint64_t weight;   /* nanoseconds that this stack stands for */
    uint16_t count;
    uint8_t end;       /* enum end */
    uint8_t reserved[5];
    uint8_t classes[NATIVE_DEPTH];
    uint64_t from[NATIVE_DEPTH], to[NATIVE_DEPTH];
} __attribute__((aligned(128)));

enum range_kind {
    RANGE_CODE = 1,     /* executable, not writable */
    RANGE_PATCHED = 2,  /* executable and writable, or of no file: one instruction at a time */
    RANGE_CLOSED = 3    /* restartable sequences, and code that the recorder has changed */
};

/* Executable memory; sorted, without overlap. */
struct range {
    uint64_t start, end;
    uint32_t kind, reserved;
};

struct shared {
    uint32_t stopped;   /* by pylbr: make no more windows */
    uint32_t depth;     /* accepted branches of a window */
    uint32_t accept;    /* bit per lbr_class */
    uint32_t blocks_max;
    uint64_t cycles_max;/* of a window, TSC */
    uint32_t rest;      /* a window of n cycles is followed by n * rest / 256 cycles without */
    uint32_t tick_cost; /* TSC cycles of a tick outside its handler */
    uint32_t burst;     /* windows of a tick */
    uint32_t gap;       /* taken branches between two: gap / 2 up to gap * 3 / 2, at random */
    uint64_t period;    /* nanoseconds between ticks */
    uint64_t head;      /* next position of the ring */
    uint64_t full;      /* windows that found the ring full */
    uint64_t ticks;     /* that began a window */
    uint64_t left_out;  /* windows that these did not come to */
    uint64_t skipped[SKIP_KINDS];
    uint64_t ended[END_KINDS];
    uint64_t generation;/* raised when translations may have become void */
    uint64_t version;   /* of the table below: odd while it is written */
    uint64_t range_count;
    struct range ranges[NATIVE_RANGES];
};

/* A piece of memory near some code, cut into a slice for each lane. */
struct region {
    uint64_t start;
    int64_t alias;      /* added to an address for writing; 0 where the region is writable */
};

/* What the program has asked of rt_sigaction for a signal that the blob stands before. */
struct slot {
    uint64_t handler, flags, restorer, mask;
    uint32_t number; /* of the signal */
    uint32_t ready;
};

struct state {
    uint64_t shared, ring;       /* addresses */
    uint64_t ring_mask;
    uint64_t threads;            /* array of thread areas, by key */
    uint32_t thread_count, thread_size;
    uint64_t lanes;
    uint32_t lane_count;
    uint32_t pkeys;              /* whether the processor has protection keys enabled */
    uint64_t fork_page;          /* wiped in the child of a fork: struct fork_page */
    uint64_t region_count, slice;
    struct region regions[NATIVE_REGIONS];
    uint64_t code_start, code_end; /* of the blob */
    uint64_t slot_count;
    struct slot slots[NATIVE_SLOTS];
};

/* MADV_WIPEONFORK: in a new process no lane is in use, and all translations are void. */
struct fork_page {
    uint64_t epoch;
    uint32_t busy[NATIVE_LANES];
};

#endif
