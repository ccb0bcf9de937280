/* A logical processor with LBRs: what an emulator calls for RDMSR, WRMSR, CPUID and branches.
 *
 *   cc -O2 processor.c $(pkg-config --cflags --libs lbrcore)
 *
 * processor [model]   let a small guest switch recording on, and show what it reads
 * processor --every   go through every model, register and event
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lbrcore_cpu.h>

static void must(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, lbr_strerror(result));
        exit(1);
    }
}

/* WRMSR and RDMSR as an emulator's instructions: a value, or an exception for the guest. */
static void wrmsr(lbr_cpu *cpu, uint32_t index, uint64_t value) {
    lbr_fault fault;
    if (lbr_wrmsr(cpu, index, value, &fault) == LBR_GP)
        printf("wrmsr %#x %#" PRIx64 ": #GP: %s (%#" PRIx64 ")\n", index, value, fault.rule,
               fault.bits);
}

static void rdmsr(const lbr_cpu *cpu, uint32_t index) {
    char name[40];
    uint64_t value;
    lbr_fault fault;
    lbr_msr_name(cpu->model, index, name, sizeof name);
    if (lbr_rdmsr(cpu, index, &value, &fault) == LBR_GP)
        printf("rdmsr %#x: #GP: %s\n", index, fault.rule);
    else
        printf("rdmsr %#x: %#" PRIx64 "  %s\n", index, value, name);
}

static void guest(lbr_cpu *cpu) {
    uint32_t leaf[4];
    lbr_cpuid(cpu, 0x1C, 0, leaf);
    printf("cpuid 1CH: %08x %08x %08x %08x\n", leaf[0], leaf[1], leaf[2], leaf[3]);
    wrmsr(cpu, 0x14CE, 1ull << 40);          /* a reserved bit */
    wrmsr(cpu, 0x14CE, 0x7F0007);            /* IA32_LBR_CTL: everything */
    wrmsr(cpu, 0x1D9, 1 << 11);              /* FREEZE_LBRS_ON_PMI */
    wrmsr(cpu, 0x186, 0x5300C4);             /* branches, with an interrupt */
    wrmsr(cpu, 0x4C1, (1ull << 48) - 20);    /* after 20 of them */
    for (uint64_t i = 0; i < 40; i++) {
        lbr_branch branch = {.from = 0x401000 + 4 * i, .to = 0x402000 + 4 * i, .cycles = 3,
                             .instructions = 2, .cls = LBR_NEAR_REL_JMP, .cpl_from = 3,
                             .cpl_to = 3};
        if (lbr_cpu_branch(cpu, &branch) == LBR_PMI)
            printf("PMI after branch %d\n", (int)i + 1);
    }
    for (uint32_t index = 0; index < 2; index++) {
        rdmsr(cpu, 0x1500 + index);
        rdmsr(cpu, 0x1600 + index);
        rdmsr(cpu, 0x1200 + index);
    }
    rdmsr(cpu, 0x38E); /* IA32_PERF_GLOBAL_STATUS */
    rdmsr(cpu, 0x1500 + 32);
}

/* Every register of every model, every event, and the state saved and loaded in between. */
static void every(void) {
    static unsigned char saved[LBR_STATE_MAX];
    size_t used;
    for (size_t i = 0; lbr_model_at(i); i++) {
        lbr_cpu *cpu;
        must(lbr_cpu_new(&cpu, lbr_model_at(i)->name), "new");
        for (int round = 0; round < 2; round++) {
            for (uint32_t index = 0; index < 0x2000; index++) {
                uint64_t value = 0;
                lbr_host_rdmsr(cpu, index, &value, NULL);
                lbr_host_wrmsr(cpu, index, value ^ (uint64_t)round, NULL);
            }
            for (uint64_t n = 0; n < 100; n++) {
                lbr_branch branch = {.from = n, .to = ~n, .cls = n & 15, .flags = n >> 4 & 7};
                must(lbr_cpu_branch(cpu, &branch), "branch");
            }
            lbr_cpu_smi(cpu), lbr_cpu_debug_exception(cpu), lbr_cpu_rsm(cpu);
            lbr_cpu_raise_pmi(cpu), lbr_cpu_mwait(cpu, 1, 1), lbr_cpu_retire(cpu, 9, 9, 0);
            must(lbr_cpu_save(cpu, saved, sizeof saved, &used), "save");
            lbr_cpu_reset(cpu, round, 0);
            must(lbr_cpu_load(cpu, saved, used), "load");
            for (size_t cut = 0; cut < used; cut += 13)
                if (lbr_cpu_load(cpu, saved, cut) != LBR_ESTATE) exit(2);
        }
        lbr_cpu_destroy(cpu);
    }
    puts("every model went through");
}

int main(int argc, char **argv) {
    lbr_cpu *cpu;
    if (argc > 1 && !strcmp(argv[1], "--every")) {
        every();
        return 0;
    }
    must(lbr_cpu_new(&cpu, argc > 1 ? argv[1] : "sapphire-rapids"), "lbr_cpu_new");
    guest(cpu);
    lbr_cpu_destroy(cpu);
    return 0;
}
