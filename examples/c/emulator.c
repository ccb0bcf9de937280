/* A small interpreter with a last-branch record facility.
 *
 *   cc -O2 emulator.c $(pkg-config --cflags --libs lbrcore)
 *
 * emulator          run the program below and print its last branches
 * emulator --time N record N branches by a call and inlined, print nanoseconds per branch
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lbrcore_inline.h"

enum op { OP_ADD, OP_SUB, OP_MOV, OP_JNZ, OP_CALL, OP_RET, OP_PUSH, OP_POP, OP_HALT };

typedef struct insn {
    enum op op;
    int reg;       /* operand register, 0..3 */
    int64_t value; /* immediate, source register or target */
} insn;

enum { BASE = 0x401000, WIDTH = 4, STACK = 256 };

/* r1 = fib(r0), calling itself. */
static const insn program[] = {
    [0] = {OP_MOV, 0, 10},   /* r0 = 10 */
    [1] = {OP_CALL, 0, 3},   /* fib */
    [2] = {OP_HALT, 0, 0},
    [3] = {OP_JNZ, 0, 5},    /* fib(0) = 0 */
    [4] = {OP_RET, 0, 0},
    [5] = {OP_SUB, 0, 1},
    [6] = {OP_JNZ, 0, 9},    /* fib(1) = 1 */
    [7] = {OP_ADD, 1, 1},
    [8] = {OP_RET, 0, 0},
    [9] = {OP_PUSH, 0, 0},
    [10] = {OP_CALL, 0, 3},  /* fib(n - 1) */
    [11] = {OP_POP, 0, 0},
    [12] = {OP_SUB, 0, 1},
    [13] = {OP_CALL, 0, 3},  /* fib(n - 2) */
    [14] = {OP_RET, 0, 0},
};

static uint64_t address(int64_t index) { return BASE + WIDTH * (uint64_t)index; }

/* What an emulator adds: one call per branch. */
static void branch(lbr_state *state, int64_t from, int64_t to, enum lbr_class cls, uint32_t *since) {
    lbr_branch taken = {.from = address(from), .to = address(to), .cycles = *since,
                        .instructions = *since, .cls = (uint8_t)cls,
                        .cpl_from = 3, .cpl_to = 3};
    lbr_record(state, &taken);
    *since = 0;
}

static int64_t run(lbr_state *state) {
    int64_t reg[4] = {0}, stack[STACK];
    int64_t pc = 0;
    int sp = 0;
    uint32_t since = 0; /* instructions since the last branch */
    for (;;) {
        const insn i = program[pc];
        int64_t next = pc + 1;
        since++;
        switch (i.op) {
        case OP_ADD: reg[i.reg] += i.value; break;
        case OP_SUB: reg[i.reg] -= i.value; break;
        case OP_MOV: reg[i.reg] = i.value; break;
        case OP_PUSH: stack[sp++] = reg[i.reg]; break;
        case OP_POP: reg[i.reg] = stack[--sp]; break;
        case OP_JNZ:
            if (reg[i.reg]) {
                next = i.value;
                branch(state, pc, next, LBR_COND, &since);
            }
            break;
        case OP_CALL:
            stack[sp++] = next;
            next = i.value;
            branch(state, pc, next, LBR_NEAR_REL_CALL, &since);
            break;
        case OP_RET:
            next = stack[--sp];
            branch(state, pc, next, LBR_NEAR_RET, &since);
            break;
        case OP_HALT:
            return reg[1];
        }
        pc = next;
    }
}

static void show(const lbr_state *state) {
    lbr_entry entries[LBR_MAX_DEPTH];
    uint32_t depth = lbr_read_records(state, entries);
    for (uint32_t i = 0; i < depth && entries[i].from; i++)
        printf("%2" PRIu32 " %#" PRIx64 " -> %#" PRIx64 " type %" PRIu64 " cycles %" PRIu64 "\n",
               i, entries[i].from, entries[i].to, entries[i].info >> 56 & 15,
               entries[i].info & 0xFFFF);
}

static double seconds_since(const struct timespec *start) {
    struct timespec end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    return (double)(end.tv_sec - start->tv_sec) + 1e-9 * (double)(end.tv_nsec - start->tv_nsec);
}

static void measure(lbr_state *state, long count) {
    struct timespec start;
    lbr_branch taken = {.from = BASE, .to = BASE + 64, .cycles = 3, .instructions = 3,
                        .cls = LBR_NEAR_REL_JMP, .cpl_from = 3, .cpl_to = 3};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    for (long i = 0; i < count; i++) {
        taken.from = BASE + (uint64_t)(i & 0xFFF);
        lbr_record(state, &taken);
    }
    printf("call %.3f ns per branch\n", seconds_since(&start) * 1e9 / (double)count);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    for (long i = 0; i < count; i++) {
        taken.from = BASE + (uint64_t)(i & 0xFFF);
        lbr_record_inline(state, &taken);
    }
    printf("inline %.3f ns per branch\n", seconds_since(&start) * 1e9 / (double)count);
}

int main(int argc, char **argv) {
    /* 32 deep, every class and both rings can be filtered. */
    const lbr_config config = {.flavour = LBR_ARCHITECTURAL, .depth_bitmap = 0x0F,
                               .linear_width = 48, .ctl_mask = 0x7F000F,
                               .info_mask = 0xFF0000000000FFFF};
    lbr_state *state = lbr_create(&config);
    if (!state || lbr_write_ctl(state, 0x7F0007) != LBR_OK) {
        fprintf(stderr, "emulator: no facility of this configuration\n");
        return 1;
    }
    if (argc == 3 && !strcmp(argv[1], "--time")) {
        measure(state, atol(argv[2]));
    } else {
        printf("fib(10) = %" PRId64 "\n", run(state));
        show(state);
    }
    lbr_destroy(state);
    return 0;
}
