/* The shared memory between the QEMU plugin and pylbr.
 *
 * One anonymous file holds a header, a table of slots (one per running thread), the table
 * of blocks that all processes of a recording share, and a ring a slot.  Nothing in it is
 * addressed by pointer, and pylbr checks every index that it reads here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_WIRE_H
#define PYLBR_WIRE_H

#include <stdint.h>

#include "lbrcore.h"

#define WIRE_MAGIC 0x4552424cu /* "LBRE" */
#define WIRE_VERSION 2u

/* A word of a ring: a block's number, or with bit 31 or 30 set something that happened
 * between two blocks.  Each word identifies itself, so that a ring reads in both
 * directions: payload words, lowest bits first, then the event, then the next block. */
#define WIRE_PAYLOAD 0x40000000u /* | 30 bits */
#define WIRE_PAYLOAD_BITS 30
#define WIRE_EVENT 0x80000000u   /* | enum wire_event */

enum wire_event {
    WIRE_ASYNCHRONOUS = 1, /* payload: interrupted address (3 words); handler follows */
    WIRE_SYNCHRONOUS = 2,  /* payload: faulting address (3 words); handler follows */
    WIRE_SIGRETURN = 3     /* no payload; the interrupted code follows */
};
#define WIRE_WINDOW_WORDS 8192 /* the longest that a sample holds */

enum wire_mode { WIRE_SAMPLED = 0, WIRE_FULL = 1 };
enum wire_counted {
    WIRE_BRANCHES = LBR_UNIT_BRANCHES,
    WIRE_INSTRUCTIONS = LBR_UNIT_INSTRUCTIONS,
    WIRE_CYCLES = LBR_UNIT_CYCLES,
    WIRE_TAKEN, /* branches that are taken */
    WIRE_TIME
};

#define WIRE_NO_BRANCH 255u /* a block cut without a branch: 512 instructions, page end, ... */

/* One translated block.  Equal blocks of several processes have one number. */
typedef struct wire_block {
    uint64_t start;   /* address of the first instruction */
    uint64_t target;  /* of a direct branch at its end, else 0 */
    uint32_t lengths; /* where in wire_header.lengths the length of each instruction is */
    uint16_t size;    /* bytes; start + size is the address after it */
    uint16_t last;    /* offset of the last instruction */
    uint16_t instructions;
    uint16_t cost;    /* cycles in the model of cost.h */
    uint8_t cls;      /* enum lbr_class of the last instruction, or WIRE_NO_BRANCH */
    uint8_t reserved[3];
} wire_block;

typedef struct wire_header {
    uint32_t magic, version;
    uint32_t mode;         /* enum wire_mode */
    uint32_t counted;      /* enum wire_counted: what the period counts */
    uint64_t period;       /* between samples; nanoseconds for WIRE_TIME */
    uint32_t accept;       /* bit per lbr_class: what a window must hold `depth` of */
    uint32_t depth;
    uint32_t slots;
    uint32_t blocks;       /* size of the table; number 0 is never used */
    uint32_t buckets;      /* of the hash over it, a power of two */
    uint32_t length_bytes; /* size of the pool of instruction lengths */
    uint32_t ring_words;   /* a slot; in full mode a multiple of chunk_words */
    uint32_t chunk_words;
    uint32_t message_bytes;/* a slot, a power of two */
    uint32_t halves;       /* of a system: whose branches count for `depth`; 1: the lower half of
                              addresses, 2: the upper one, the kernel's; 0: no system */
    uint32_t counted_halves; /* of a system: whose events the period counts, as `halves` */
    uint32_t reserved;
    uint64_t slots_at, blocks_at, buckets_at, lengths_at, rings_at, messages_at, size;
    /* Below: written while a recording runs. */
    uint32_t stopped;      /* by pylbr: record no more */
    uint32_t next_block;
    uint32_t next_length;
    uint32_t slots_used;   /* one more than the highest slot ever taken */
    uint64_t lost_threads; /* threads without a slot, blocks that did not fit */
} wire_header;

enum wire_state { WIRE_FREE = 0, WIRE_CLAIMED = 1, WIRE_LIVE = 2, WIRE_DONE = 3 };

typedef struct wire_slot {
    uint32_t state;        /* enum wire_state */
    uint32_t pid, tid;
    uint32_t parent;       /* pid of the process that forked or executed this one */
    uint64_t started;      /* CLOCK_MONOTONIC, ns */
    uint64_t written;      /* bytes of messages, by the plugin */
    uint64_t read;         /* by pylbr */
    uint64_t chunks_written;
    uint64_t chunks_read;  /* pylbr zeroes what it has read: the words of an unfinished
                              chunk end at the first 0, however the thread ended */
} __attribute__((aligned(128))) wire_slot;

enum wire_message_type {
    WIRE_PAD = 0,    /* to the end of the ring */
    WIRE_SAMPLE = 1, /* u64 period; words, oldest first; the last is the block about to run */
    WIRE_MMAP = 2,   /* u64 address, length, file offset; path */
    WIRE_COMM = 3,   /* program started: u32 tid; its name */
    WIRE_NATIVE = 4, /* an execve that leaves the recording: path, NUL, reason */
    WIRE_KILLED = 5, /* the process is about to be killed: path, NUL, reason */
    WIRE_NAME = 6,   /* a thread has another name: u32 tid; name */
};

typedef struct wire_message {
    uint32_t size;  /* with this head, a multiple of 8 */
    uint32_t type;
    uint64_t time;  /* CLOCK_MONOTONIC, ns */
    uint32_t bytes; /* of the payload in use */
    uint32_t cpu;
} wire_message;

#endif
