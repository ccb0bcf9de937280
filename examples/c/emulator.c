/* A small interpreter with a last-branch record facility.
 *
 * The facility is reached through lbrcore's function table.  A program that is no
 * Python extension starts an interpreter once, to load the table; after that no
 * Python runs and no lock is held.
 *
 *   cc -O2 emulator.c $(python3-config --includes) -I"$LBRCORE_INCLUDE" \
 *      $(python3-config --embed --ldflags)
 *
 * emulator          run the program below and print its last branches
 * emulator --time N record N branches through the table, print nanoseconds each
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lbrcore.h"

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

/* What an emulator adds: one branch, told to the facility. */
static void branch(const lbrcore_api *lbr, lbr_state *state, int64_t from, int64_t to,
                   enum lbr_class cls, uint32_t *since) {
    lbr_branch taken = {.from = address(from), .to = address(to), .cycles = *since,
                        .instructions = *since, .cls = (uint8_t)cls,
                        .cpl_from = 3, .cpl_to = 3};
    lbr->record(state, &taken);
    *since = 0;
}

static int64_t run(const lbrcore_api *lbr, lbr_state *state) {
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
                branch(lbr, state, pc, next, LBR_COND, &since);
            }
            break;
        case OP_CALL:
            stack[sp++] = next;
            next = i.value;
            branch(lbr, state, pc, next, LBR_NEAR_REL_CALL, &since);
            break;
        case OP_RET:
            next = stack[--sp];
            branch(lbr, state, pc, next, LBR_NEAR_RET, &since);
            break;
        case OP_HALT:
            return reg[1];
        }
        pc = next;
    }
}

static void show(const lbrcore_api *lbr, const lbr_state *state) {
    lbr_entry entries[LBR_MAX_DEPTH];
    uint32_t depth = lbr->read_records(state, entries);
    for (uint32_t i = 0; i < depth && entries[i].from; i++)
        printf("%2" PRIu32 " %#" PRIx64 " -> %#" PRIx64 " type %" PRIu64 " cycles %" PRIu64 "\n",
               i, entries[i].from, entries[i].to, entries[i].info >> 56 & 15,
               entries[i].info & 0xFFFF);
}

static void measure(const lbrcore_api *lbr, lbr_state *state, long count) {
    struct timespec start, end;
    lbr_branch taken = {.from = BASE, .to = BASE + 64, .cycles = 3, .instructions = 3,
                        .cls = LBR_NEAR_REL_JMP, .cpl_from = 3, .cpl_to = 3};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    for (long i = 0; i < count; i++) {
        taken.from = BASE + (uint64_t)(i & 0xFFF);
        lbr->record(state, &taken);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    printf("%.3f ns a branch\n", seconds * 1e9 / (double)count);
}

int main(int argc, char **argv) {
    Py_InitializeEx(0);
    const lbrcore_api *lbr = lbrcore_import();
    if (!lbr) {
        PyErr_Print();
        return 1;
    }
    /* 32 deep, every class and both rings can be filtered. */
    const lbr_config config = {.flavour = LBR_ARCHITECTURAL, .depth_bitmap = 0x0F,
                               .linear_width = 48, .ctl_mask = 0x7F000F,
                               .info_mask = 0xFF0000000000FFFF};
    lbr_state *state = lbr->create(&config);
    if (!state || lbr->write_ctl(state, 0x7F0007) != LBR_OK) {
        fprintf(stderr, "emulator: no facility of this configuration\n");
        return 1;
    }
    if (argc == 3 && !strcmp(argv[1], "--time")) {
        measure(lbr, state, atol(argv[2]));
    } else {
        printf("fib(10) = %" PRId64 "\n", run(lbr, state));
        show(lbr, state);
    }
    lbr->destroy(state);
    Py_Finalize();
    return 0;
}
