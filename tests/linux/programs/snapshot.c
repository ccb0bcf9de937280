/* Branches before a system call, by a BPF program on the raw tracepoint "sys_enter" that calls
 * bpf_get_branch_snapshot; an event of perf keeps the LBRs on.  Writes what the program stored to standard
 * output: per entry u64 from, u64 to, u64 flags, the newest first. */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "kinds.h"

enum { ENTRIES = 32, ENTRY = 24, SIZE = 8 + ENTRIES * ENTRY, ASKED = 0x5EED };

static int checked(long result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return (int)result;
}

static int bpf(int command, union bpf_attr *attr, const char *what) {
    return checked(syscall(SYS_bpf, command, attr, sizeof *attr), what);
}

#define INSN(CODE, DST, SRC, OFF, IMM)                                                             \
    ((struct bpf_insn){.code = (CODE), .dst_reg = (DST), .src_reg = (SRC), .off = (OFF), .imm = (IMM)})

/* if (ctx->id == ASKED) { u8 *value = lookup(map, &0); *(u64 *)value = snapshot(value + 8, ...); } */
static int program(int map) {
    struct bpf_insn code[] = {
        INSN(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_2, BPF_REG_1, 8, 0),
        INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 13, ASKED),
        INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
        INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
        INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map),
        INSN(0, 0, 0, 0, 0),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
        INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 6, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_0, 0, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_1, BPF_REG_0, 0, 0),
        INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_1, 0, 0, 8),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, ENTRIES * ENTRY),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, 0),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_branch_snapshot),
        INSN(BPF_STX | BPF_MEM | BPF_DW, BPF_REG_6, BPF_REG_0, 0, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0),
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    };
    code[1].off = sizeof code / sizeof *code - 2 - 2;
    code[8].off = sizeof code / sizeof *code - 2 - 9;
    static char log[65536];
    union bpf_attr attr = {
        .prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT, .insns = (uint64_t)code,
        .insn_cnt = sizeof code / sizeof *code, .license = (uint64_t) "GPL",
        .log_buf = (uint64_t)log, .log_size = sizeof log, .log_level = 1,
    };
    long result = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
    if (result < 0)
        fputs(log, stderr);
    return checked(result, "BPF_PROG_LOAD");
}

int main(void) {
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = SIZE,
                           .max_entries = 1};
    int map = bpf(BPF_MAP_CREATE, &attr, "BPF_MAP_CREATE");
    int loaded = program(map);
    memset(&attr, 0, sizeof attr);
    attr.raw_tracepoint.name = (uint64_t) "sys_enter";
    attr.raw_tracepoint.prog_fd = (uint32_t)loaded;
    bpf(BPF_RAW_TRACEPOINT_OPEN, &attr, "BPF_RAW_TRACEPOINT_OPEN");

    struct perf_event_attr event = {
        .type = PERF_TYPE_HARDWARE, .size = sizeof event, .config = PERF_COUNT_HW_BRANCH_INSTRUCTIONS,
        .sample_period = 1ull << 40, .sample_type = PERF_SAMPLE_BRANCH_STACK,
        .branch_sample_type = PERF_SAMPLE_BRANCH_ANY | PERF_SAMPLE_BRANCH_USER,
    };
    checked(syscall(SYS_perf_event_open, &event, 0, -1, -1, 0), "perf_event_open");
    rounds(100);
    syscall(ASKED);

    unsigned char value[SIZE];
    uint32_t key = 0;
    memset(&attr, 0, sizeof attr);
    attr.map_fd = (uint32_t)map;
    attr.key = (uint64_t)&key;
    attr.value = (uint64_t)value;
    bpf(BPF_MAP_LOOKUP_ELEM, &attr, "BPF_MAP_LOOKUP_ELEM");
    int64_t size;
    memcpy(&size, value, 8);
    if (size < 0) {
        errno = (int)-size;
        perror("bpf_get_branch_snapshot");
        return 1;
    }
    return fwrite(value + 8, 1, (size_t)size, stdout) != (size_t)size;
}
