/* XSAVES and XRSTORS of component 15: round trips, initialisation, #GP. */
#include "guest.h"

enum { COMPONENT = 1 << 15, AREA = 1384, LBR_AT = 576 };

static uint8_t area[2048] __attribute__((aligned(64)));
static volatile int vector = -1;

static void fault(frame *f) {
    vector = (int)f->vector;
    f->rip += 3;
}

static int xsaves(void *to, uint64_t mask) {
    vector = -1;
    __asm__ volatile(".byte 0x0F, 0xC7, 0x2F" /* xsaves (%rdi) */
                     : : "D"(to), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
    return vector;
}

static int xrstors(void *from, uint64_t mask) {
    vector = -1;
    __asm__ volatile(".byte 0x0F, 0xC7, 0x1F" /* xrstors (%rdi) */
                     : : "D"(from), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
    return vector;
}

static uint64_t word(uint32_t at) { return *(uint64_t *)(area + at); }

static void fill(void) {
    wrmsr(IA32_LBR_DEPTH, 32);
    for (uint32_t i = 0; i < 32; i++) {
        wrmsr(IA32_LBR_FROM + i, 0x1000 + i);
        wrmsr(IA32_LBR_TO + i, 0x2000 + i);
        wrmsr(IA32_LBR_INFO + i, 0x300000 + i);
    }
}

static void enable(void) {
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0; or $0x40000, %0; mov %0, %%cr4" : "=r"(cr4) : : "memory");
    __asm__ volatile("xsetbv" : : "c"(0), "a"(3), "d"(0));
}

static void round_trip(void) {
    fill();
    memset(area, 0, sizeof area);
    check(xsaves(area, COMPONENT | 3) == -1);
    check(word(520) == (1ull << 63 | COMPONENT | 3));
    check(word(512) & COMPONENT);
    check(word(LBR_AT + 8) == 32);
    for (uint32_t i = 0; i < 32; i++) {
        check(word(LBR_AT + 40 + 24 * i) == 0x1000 + i);
        check(word(LBR_AT + 48 + 24 * i) == 0x2000 + i);
    }
    wrmsr(IA32_LBR_DEPTH, 32);
    check(rdmsr(IA32_LBR_FROM + 7) == 0);
    check(xrstors(area, COMPONENT) == -1);
    for (uint32_t i = 0; i < 32; i++) check(rdmsr(IA32_LBR_FROM + i) == 0x1000 + i);
    /* SSE state goes along. */
    uint64_t a = 0x123456789ABCDEF0, b = 0;
    __asm__ volatile("movq %0, %%xmm3" : : "r"(a));
    check(xsaves(area, 3) == -1);
    __asm__ volatile("pxor %%xmm3, %%xmm3" : : );
    check(xrstors(area, 3) == -1);
    __asm__ volatile("movq %%xmm3, %0" : "=r"(b));
    check(a == b);
}

/* Records of a run, all filled: in the area as the MSRs show them, and back again. */
static void recorded(void) {
    uint64_t shown[3][32];
    wrmsr(IA32_LBR_DEPTH, 32);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | (LBR_ALL & ~LBR_OTHER));
    for (volatile int i = 0; i < 100; i++) {}
    wrmsr(IA32_LBR_CTL, 0);
    memset(area, 0, sizeof area);
    check(xsaves(area, COMPONENT | 3) == -1);
    for (uint32_t i = 0; i < 32; i++) {
        shown[0][i] = rdmsr(IA32_LBR_FROM + i);
        shown[1][i] = rdmsr(IA32_LBR_TO + i);
        shown[2][i] = rdmsr(IA32_LBR_INFO + i);
        for (uint32_t part = 0; part < 3; part++)
            check(word(LBR_AT + 40 + 24 * i + 8 * part) == shown[part][i]);
        /* A host that shares them makes the cycles of some unknown: with COND, an INFO of 0. */
        check(shown[0][i] && shown[1][i] && (shown[2][i] || !depth_offered(16)));
    }
    wrmsr(IA32_LBR_DEPTH, 32);
    check(rdmsr(IA32_LBR_FROM) == 0 && rdmsr(IA32_LBR_INFO + 31) == 0);
    check(xrstors(area, COMPONENT | 3) == -1);
    for (uint32_t i = 0; i < 32; i++)
        check(rdmsr(IA32_LBR_FROM + i) == shown[0][i] && rdmsr(IA32_LBR_TO + i) == shown[1][i] &&
              rdmsr(IA32_LBR_INFO + i) == shown[2][i]);
}

static void other_depth(void) {
    fill();
    check(xsaves(area, COMPONENT) == -1);
    wrmsr(IA32_LBR_DEPTH, 16);
    check(xrstors(area, COMPONENT) == -1); /* another depth: records are zeroed, depth stays */
    check(rdmsr(IA32_LBR_DEPTH) == 16 && rdmsr(IA32_LBR_FROM) == 0);
}

static void initialise(void) {
    fill();
    check(xsaves(area, COMPONENT) == -1);
    *(uint64_t *)(area + 512) = 0;
    check(xrstors(area, COMPONENT) == -1);
    check(rdmsr(IA32_LBR_FROM + 3) == 0 && rdmsr(IA32_LBR_DEPTH) == 32);
}

/* XRSTORS of a state that was recording switches recording on. */
static void recording(void) {
    wrmsr(IA32_LBR_DEPTH, 32);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_COND);
    check(xsaves(area, COMPONENT) == -1); /* clears nothing */
    check(rdmsr(IA32_LBR_CTL) & LBREN);
    wrmsr(IA32_LBR_CTL, 0);
    wrmsr(IA32_LBR_DEPTH, 32);
    check(xrstors(area, COMPONENT) == -1);
    for (volatile int i = 0; i < 3; i++) {}
    check(rdmsr(IA32_LBR_CTL) == (LBREN | LBR_OS | LBR_COND));
    check(rdmsr(IA32_LBR_FROM) != 0);
    wrmsr(IA32_LBR_CTL, 0);
}

static void refused(void) {
    handlers[13] = fault;
    fill();
    check(xsaves(area, COMPONENT) == -1);
    check(xsaves(area + 8, COMPONENT) == 13);
    check(xrstors(area + 8, COMPONENT) == 13);
    *(uint64_t *)(area + 520) &= ~(1ull << 63);
    check(xrstors(area, COMPONENT) == 13);
    *(uint64_t *)(area + 520) = 1ull << 63 | COMPONENT | 1ull << 40;
    check(xrstors(area, COMPONENT) == 13);
    *(uint64_t *)(area + 520) = 1ull << 63 | COMPONENT;
    *(uint64_t *)(area + 512) = COMPONENT | 2;
    check(xrstors(area, COMPONENT) == 13);
    *(uint64_t *)(area + 512) = COMPONENT;
    area[530] = 1;
    check(xrstors(area, COMPONENT) == 13);
    area[530] = 0;
    *(uint64_t *)(area + LBR_AT) = 0x80; /* a reserved bit of IA32_LBR_CTL */
    check(xrstors(area, COMPONENT) == 13);
    check(rdmsr(IA32_LBR_FROM + 5) == 0x1005); /* nothing has changed */
    *(uint64_t *)(area + LBR_AT) = 0;
    check(xrstors(area, COMPONENT) == -1);
    handlers[13] = NULL;
}

void test(void) {
    check(cpuid(0xD, 1).eax >> 3 & 1 && cpuid(0xD, 1).ecx >> 15 & 1);
    check(cpuid(0xD, 15).eax == 808);
    handlers[6] = fault;
    check(xsaves(area, COMPONENT) == 6); /* CR4.OSXSAVE is 0 */
    handlers[6] = NULL;
    enable();
    check(wrmsr_safe(IA32_XSS, 1ull << 40) == 13);
    wrmsr(IA32_XSS, COMPONENT);
    check(cpuid(0xD, 1).ebx == AREA);
    round_trip();
    recorded();
    if (depth_offered(16)) other_depth();
    initialise();
    recording();
    refused();
}
