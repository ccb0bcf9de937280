/* Debug exceptions: single steps, also over instructions that the machine serves itself, INT1,
 * breakpoints; each clears LBREn, and none is recorded. */
#include "guest.h"

enum { MOST = 12, TF = 1 << 8, RF = 1 << 16, BS = 1 << 14, FIXED = 0xFFFF0FF0 };

static volatile uint32_t n;
static uint64_t at[MOST], dr6[MOST], ctl[MOST];

static uint64_t read_dr6(void) {
    uint64_t value;
    __asm__ volatile("mov %%dr6, %0" : "=r"(value));
    return value;
}

static void write_dr6(uint64_t value) { __asm__ volatile("mov %0, %%dr6" : : "r"(value)); }
static void write_dr7(uint64_t value) { __asm__ volatile("mov %0, %%dr7" : : "r"(value)); }

static void debug(frame *f) {
    if (n < MOST) {
        at[n] = f->rip;
        dr6[n] = read_dr6();
        ctl[n] = rdmsr(IA32_LBR_CTL);
    }
    if (dr6[n < MOST ? n : 0] & 0xF) f->rflags |= RF;
    if (++n >= MOST) f->rflags &= ~(uint64_t)TF;
    write_dr6(FIXED);
}

#define STEP_ON "pushfq; orq $0x100, (%%rsp); popfq\n"
#define STEP_OFF "pushfq; andq $~0x100, (%%rsp); popfq\n"

extern char d_0[], d_1[], d_2[], d_3[], d_4[], d_5[];

/* RDMSR of ours and of the engine's, CPUID, IN: a step each. */
static void steps(void) {
    n = 0;
    write_dr6(FIXED);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_ALL);
    __asm__ volatile("mov $0x14ce, %%ecx\n"
                     STEP_ON
                     ".globl d_0, d_1, d_2, d_3, d_4, d_5\n"
                     "d_0: rdmsr\n"
                     "d_1: xor %%eax, %%eax\n"
                     "d_2: cpuid\n"
                     "d_3: mov $0x3fd, %%edx\n"
                     "d_4: inb %%dx, %%al\n"
                     "d_5:" STEP_OFF
                     : : : "eax", "ebx", "ecx", "edx", "memory", "cc");
    check(n >= 6);
    check(at[0] == (uint64_t)d_1 && at[1] == (uint64_t)d_2 && at[2] == (uint64_t)d_3);
    check(at[3] == (uint64_t)d_4 && at[4] == (uint64_t)d_5);
    for (int i = 0; i < 5; i++) check(dr6[i] == (FIXED | BS));
    check(ctl[0] == (LBR_OS | LBR_ALL));
    wrmsr(IA32_LBR_CTL, 0);
}

/* XSAVES, which the engine does not support at all. */
static void step_over_xsaves(void) {
    extern char d_xsaves[];
    static uint8_t area[2048] __attribute__((aligned(64)));
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0; or $0x40000, %0; mov %0, %%cr4" : "=r"(cr4) : : "memory");
    n = 0;
    __asm__ volatile(STEP_ON ".byte 0x0F, 0xC7, 0x2F\n" /* xsaves (%%rdi) */
                     ".globl d_xsaves\n d_xsaves:" STEP_OFF
                     : : "D"(area), "a"(3), "d"(0) : "memory", "cc");
    check(n >= 1 && at[0] == (uint64_t)d_xsaves && dr6[0] == (FIXED | BS));
}

static void int1(void) {
    n = 0;
    write_dr6(FIXED);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_ALL);
    __asm__ volatile(".globl d_int1\n .byte 0xF1\n d_int1:" : : : "memory");
    extern char d_int1[];
    check(n == 1 && at[0] == (uint64_t)d_int1 && dr6[0] == FIXED);
    check(ctl[0] == (LBR_OS | LBR_ALL));
}

static void breakpoint(void) {
    extern char d_break[];
    n = 0;
    write_dr6(FIXED);
    wrmsr(IA32_LBR_DEPTH, rdmsr(IA32_LBR_DEPTH));
    __asm__ volatile("mov %0, %%dr2" : : "r"(d_break));
    write_dr7(0x400 | 1 << 5);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_OTHER);
    __asm__ volatile(".globl d_break\n d_break: nop" : : : "memory");
    write_dr7(0x400);
    check(n == 1 && at[0] == (uint64_t)d_break && dr6[0] == (FIXED | 4));
    check(ctl[0] == (LBR_OS | LBR_OTHER));
    check(rdmsr(IA32_LBR_FROM) == 0); /* neither the #DB nor what its handler did */
}

void test(void) {
    handlers[1] = debug;
    steps();
    step_over_xsaves();
    int1();
    breakpoint();
}
