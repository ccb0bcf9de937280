/* Freeze on PMI with a real interrupt through the LVT. */
#include "guest.h"

enum {
    PERFEVTSEL0 = 0x186, PMC0_FULL = 0x4C1, GLOBAL_STATUS = 0x38E, GLOBAL_CTRL = 0x38F,
    STATUS_RESET = 0x390, FREEZE_LBRS = 1 << 11, VECTOR = 0x41,
    ALL_BRANCHES = 0xC4, COUNT_OS = 1 << 17, COUNT_INT = 1 << 20, COUNT_EN = 1 << 22,
};
#define LBR_FRZ (1ull << 58)
#define APIC(offset) (*(volatile uint32_t *)(0xFEE00000ull + (offset)))

static volatile int interrupts;
static uint64_t status, ctl, newest_from, newest_to, return_to;

static void pmi(frame *f) {
    interrupts++;
    status = rdmsr(GLOBAL_STATUS);
    ctl = rdmsr(IA32_LBR_CTL);
    newest_from = rdmsr(IA32_LBR_FROM);
    newest_to = rdmsr(IA32_LBR_TO);
    return_to = f->rip;
    wrmsr(GLOBAL_CTRL, 0);
    wrmsr(STATUS_RESET, status);
    APIC(0xB0) = 0; /* EOI */
    APIC(0x340) = VECTOR;
}

extern char p_branch[], p_top[];
static void loop(uint64_t rounds) {
    __asm__ volatile(".globl p_branch, p_top\n p_top: nop\n nop\n dec %0\n p_branch: jnz p_top"
                     : "+r"(rounds) : : "cc");
}

/* Overflow in the middle of the loop: the handler sees the loop's branch, frozen. */
static void freeze(uint64_t branches, bool frozen) {
    interrupts = 0;
    wrmsr(IA32_DEBUGCTL, frozen ? FREEZE_LBRS : 0);
    wrmsr(IA32_LBR_DEPTH, 32);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_ALL);
    wrmsr(PMC0_FULL, (0 - branches) & 0xFFFFFFFFFFFFull);
    wrmsr(PERFEVTSEL0, ALL_BRANCHES | COUNT_OS | COUNT_INT | COUNT_EN);
    wrmsr(GLOBAL_CTRL, 1);
    loop(1000);
    wrmsr(GLOBAL_CTRL, 0);
    wrmsr(IA32_LBR_CTL, 0);
    check(interrupts == 1);
    check(ctl == (LBREN | LBR_OS | LBR_ALL)); /* LBREn is not touched */
    check(status & 1);
    check(!!(status & LBR_FRZ) == frozen);
    if (frozen) {
        check(newest_from == (uint64_t)p_branch && newest_to == (uint64_t)p_top);
        check(return_to == (uint64_t)p_top);
        for (uint32_t i = 1; i < 31 && i + 2 < branches; i++)
            check(rdmsr(IA32_LBR_FROM + i) == (uint64_t)p_branch);
    } else {
        /* The way to the handler overwrote some: at least the interrupt is among them. */
        check(newest_from != (uint64_t)p_branch);
    }
    check(!(rdmsr(GLOBAL_STATUS) & LBR_FRZ));
}

/* Interrupts off: the PMI waits, and STI lets it in after the next instruction. */
extern char p_sti[];
static void pending(void) {
    interrupts = 0;
    wrmsr(PMC0_FULL, (0 - 3ull) & 0xFFFFFFFFFFFFull);
    wrmsr(PERFEVTSEL0, ALL_BRANCHES | COUNT_OS | COUNT_INT | COUNT_EN);
    __asm__ volatile("cli");
    wrmsr(GLOBAL_CTRL, 1);
    loop(10);
    check(interrupts == 0);
    wrmsr(GLOBAL_CTRL, 0);
    __asm__ volatile(".globl p_sti\n sti\n nop\n p_sti: nop\n nop" : : : "memory");
    check(interrupts == 1);
    check(return_to == (uint64_t)p_sti);
}

/* A masked entry loses the PMI. */
static void masked(void) {
    interrupts = 0;
    APIC(0x340) = 1 << 16 | VECTOR;
    wrmsr(PMC0_FULL, (0 - 3ull) & 0xFFFFFFFFFFFFull);
    wrmsr(GLOBAL_CTRL, 1);
    loop(10);
    wrmsr(GLOBAL_CTRL, 0);
    check(interrupts == 0);
    check(rdmsr(GLOBAL_STATUS) & 1);
    wrmsr(STATUS_RESET, 1);
}

/* As an NMI: interrupts off do not matter. */
static void nmi(frame *f) {
    pmi(f);
    APIC(0x340) = 1 << 16;
}

static void as_nmi(void) {
    interrupts = 0;
    handlers[2] = nmi;
    APIC(0x340) = 4 << 8;
    wrmsr(PMC0_FULL, (0 - 3ull) & 0xFFFFFFFFFFFFull);
    __asm__ volatile("cli");
    wrmsr(GLOBAL_CTRL, 1);
    loop(10);
    wrmsr(GLOBAL_CTRL, 0);
    check(interrupts == 1);
    check(return_to == (uint64_t)p_top);
    __asm__ volatile("sti");
}

/* A HLT that a self-IPI ends. */
static void halt(void) {
    interrupts = 0;
    __asm__ volatile("cli");
    APIC(0x300) = 1 << 18 | VECTOR;
    check(interrupts == 0);
    __asm__ volatile("sti\n hlt" : : : "memory");
    check(interrupts == 1);
}

void test(void) {
    handlers[VECTOR] = pmi;
    APIC(0xF0) = 0x1FF;
    APIC(0x340) = VECTOR;
    __asm__ volatile("sti");
    freeze(100, true);
    freeze(101, false);
    freeze(2, true);
    pending();
    masked();
    as_nmi();
    halt();
}
