/* Last-branch records of code that Unicorn executes, in C.
 *
 *   cc -O2 unicorn.c $(pkg-config --cflags --libs lbrcore unicorn)
 *
 * The block hook is all that is needed: a block is described when it is entered first, and the flags
 * are read where they alone tell whether a branch was taken.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <lbrcore_cpu.h>
#include <unicorn/unicorn.h>

enum { BASE = 0x401000, STACK = 0x800000, PLACES = 4096 };

/* fib: cmp edi, 2; jl out; push rdi; dec edi; call fib; pop rdi; sub edi, 2; jmp fib
 * out: jl next; next: ret.  The guest calls it with edi = 10 and ends at the HLT. */
static const unsigned char code[] =
    "\xbf\x0a\x00\x00\x00"                 /* 401000 mov edi, 10 */
    "\xe8\x01\x00\x00\x00"                 /* 401005 call fib */
    "\xf4"                                 /* 40100a hlt */
    "\x83\xff\x02"                         /* 40100b fib: cmp edi, 2 */
    "\x7c\x0e"                             /* 40100e jl out */
    "\x57"                                 /* 401010 push rdi */
    "\xff\xcf"                             /* 401011 dec edi */
    "\xe8\xf3\xff\xff\xff"                 /* 401013 call fib */
    "\x5f"                                 /* 401018 pop rdi */
    "\x83\xef\x02"                         /* 401019 sub edi, 2 */
    "\xeb\xed"                             /* 40101c jmp fib */
    "\x7c\x00"                             /* 40101e out: jl next, which is taken */
    "\xc3";                                /* 401020 next: ret */

typedef struct {
    lbr_cpu *cpu;
    lbr_block blocks[PLACES];
    bool open; /* the last block may have ended in a branch to the next instruction */
} machine;

static void must(int failed, const char *why) {
    if (failed) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
}

static void entered(uc_engine *uc, uint64_t address, uint32_t size, void *data) {
    machine *m = data;
    lbr_block *block = &m->blocks[address % PLACES];
    uint64_t flags = 0, rcx = 0;
    if (m->open) {
        uc_reg_read(uc, UC_X86_REG_EFLAGS, &flags);
        uc_reg_read(uc, UC_X86_REG_RCX, &rcx);
        lbr_cpu_flags(m->cpu, flags, rcx);
    }
    m->open = false;
    if (block->start != address || block->end != address + size) {
        unsigned char bytes[4096];
        if (size > sizeof bytes || uc_mem_read(uc, address, bytes, size) != UC_ERR_OK) return;
        lbr_cpu_settle(m->cpu, address); /* the block whose place it takes may be the last one */
        if (lbr_block_describe(block, address, bytes, size) != LBR_OK) return;
    }
    if (lbr_cpu_enter(m->cpu, block, 3) == LBR_PMI) puts("PMI");
    m->open = block->cls == LBR_COND && block->target == block->end;
}

int main(void) {
    static machine m;
    uc_engine *uc;
    uc_hook hook;
    uint64_t rsp = STACK + 0x8000;
    lbr_entry entries[LBR_MAX_DEPTH];
    int result = lbr_cpu_new(&m.cpu, "sapphire-rapids");
    must(result != LBR_OK, lbr_strerror(result));
    must(lbr_wrmsr(m.cpu, 0x14CE, 0x7F0007, NULL) != LBR_OK, "IA32_LBR_CTL");

    must(uc_open(UC_ARCH_X86, UC_MODE_64, &uc) != UC_ERR_OK, "uc_open");
    uc_mem_map(uc, BASE, 0x1000, UC_PROT_ALL);
    uc_mem_map(uc, STACK, 0x10000, UC_PROT_ALL);
    uc_mem_write(uc, BASE, code, sizeof code - 1);
    uc_reg_write(uc, UC_X86_REG_RSP, &rsp);
    must(uc_hook_add(uc, &hook, UC_HOOK_BLOCK, (void *)entered, &m, 1, 0) != UC_ERR_OK, "hook");
    must(uc_emu_start(uc, BASE, BASE + 10, 0, 0) != UC_ERR_OK, "uc_emu_start");
    lbr_cpu_settle(m.cpu, BASE + 10);

    uint32_t count = lbr_cpu_records(m.cpu, entries);
    for (uint32_t i = 0; i < count && entries[i].from; i++)
        printf("%2" PRIu32 " %#" PRIx64 " -> %#" PRIx64 " type %" PRIu64 "\n", i, entries[i].from,
               entries[i].to, entries[i].info >> 56 & 15);
    uc_close(uc);
    lbr_cpu_destroy(m.cpu);
    return 0;
}
