/* A host that wants the LBRs, too: it acts at points that this guest chooses by port F5h.
 *
 * Whatever it does, the records read are those of a run that it left alone, the newest first and
 * none between left out, or they break off in empty ones.  MODE selects when they may:
 * 0 never; 1 if the host reports it at port F5h; 2 without a report.  3: no more is promised than
 * that no record of the host's is among them. */
#include "guest.h"

enum { HOST_PORT = 0xF5, LOST = 1, RECORDS = 32, COMPONENT = 1 << 15, LBR_AT = 576 };
/* Points, as the test's script has them. */
enum { NOTHING, TRACE, EXCLUDE, CLOSE, SWITCH, SAMPLE, MIGRATE, BRANCHES };
#define HOST 0xFFFFC0DEu

typedef struct { uint64_t from, to; } record;
static record alone[RECORDS], seen[RECORDS], area_seen[RECORDS];
static uint8_t area[2048] __attribute__((aligned(64)));
static int leaks;

static inline void host(uint8_t point) { out8(HOST_PORT, point); }

static inline bool told(void) {
    uint8_t flags;
    __asm__ volatile("inb %1, %0" : "=a"(flags) : "Nd"((uint16_t)HOST_PORT));
    return flags & LOST;
}

/* Calls, returns and jumps, some of each. */
__attribute__((noinline, naked)) static void work(void) {
    __asm__("mov $3, %ecx\n"
            "1: call 2f\n dec %ecx\n jnz 1b\n jmp 3f\n"
            "2: jmp 4f\n nop\n 4: ret\n"
            "3: ret\n");
}

static void run(const uint8_t *points, int count) {
    wrmsr(IA32_LBR_DEPTH, rdmsr(IA32_LBR_DEPTH));
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_ALL);
    work();
    for (int i = 0; i < count; i++) {
        host(points[i]);
        work();
    }
    wrmsr(IA32_LBR_CTL, 0);
}

static void look(void) {
    for (uint32_t i = 0; i < RECORDS; i++) {
        seen[i].from = rdmsr(IA32_LBR_FROM + i);
        seen[i].to = rdmsr(IA32_LBR_TO + i);
    }
    memset(area, 0, sizeof area);
    __asm__ volatile(".byte 0x0F, 0xC7, 0x2F" /* xsaves (%rdi) */
                     : : "D"(area), "a"(COMPONENT), "d"(0) : "memory");
    for (uint32_t i = 0; i < RECORDS; i++) {
        area_seen[i].from = *(uint64_t *)(area + LBR_AT + 40 + 24 * i);
        area_seen[i].to = *(uint64_t *)(area + LBR_AT + 48 + 24 * i);
    }
}

/* Own records up to where they break off; true if they do. */
static bool broken_off(const record *r) {
    bool ended = false;
    for (int i = 0; i < RECORDS; i++) {
        ended |= !r[i].from && !r[i].to;
        leaks += r[i].from >> 32 == HOST;
        if (ended && MODE != 3)
            check(!r[i].from && !r[i].to);
        else if (MODE != 3)
            check(r[i].from == alone[i].from && r[i].to == alone[i].to);
    }
    return ended;
}

static void contend(const uint8_t *points, int count, bool traced) {
    static const uint8_t nothing[4];
    run(nothing, count);
    look();
    for (int i = 0; i < RECORDS; i++) alone[i] = seen[i];
    check(alone[RECORDS - 1].from || MODE == 3);
    run(points, count);
    bool lost = told();
    look();
    bool ended = broken_off(seen);
    check(broken_off(area_seen) == ended || MODE == 3);
    check(!(ended && MODE == 0));
    check(!(ended && MODE == 1) || (lost && traced));
    host(CLOSE);
    host(CLOSE);
}

/* Registers answer as if they were ours alone, recording switched off. */
static void values(uint8_t point) {
    wrmsr(IA32_LBR_DEPTH, rdmsr(IA32_LBR_DEPTH));
    host(point);
    check(wrmsr_safe(IA32_LBR_CTL, 1ull << 40) == 13);
    check(wrmsr_safe(IA32_LBR_DEPTH, 7) == 13);
    wrmsr(IA32_LBR_CTL, LBR_USR | LBR_COND);
    check(rdmsr(IA32_LBR_CTL) == (LBR_USR | LBR_COND));
    wrmsr(IA32_LBR_FROM + 3, 0x1234);
    wrmsr(IA32_LBR_TO + 31, 0x5678);
    host(SWITCH);
    if (MODE < 3) check(rdmsr(IA32_LBR_FROM + 3) == 0x1234 && rdmsr(IA32_LBR_TO + 31) == 0x5678);
    host(MIGRATE);
    check(rdmsr(IA32_LBR_CTL) == (LBR_USR | LBR_COND));
    if (MODE < 3) check(rdmsr(IA32_LBR_FROM + 3) == 0x1234 && rdmsr(IA32_LBR_TO + 31) == 0x5678);
    host(CLOSE);
    check((rdmsr(IA32_LBR_FROM + 2) == 0 || MODE == 3) && rdmsr(IA32_LBR_DEPTH) == 32);
    leaks += rdmsr(IA32_LBR_FROM + 2) >> 32 == HOST;
    wrmsr(IA32_LBR_CTL, 0);
}

static void round_trip(uint8_t point) {
    for (uint32_t i = 0; i < RECORDS; i++) wrmsr(IA32_LBR_FROM + i, 0x1000 + i);
    wrmsr(0x1DD, 0x77); /* IA32_LER_FROM_IP */
    look();
    host(point);
    __asm__ volatile(".byte 0x0F, 0xC7, 0x1F" /* xrstors (%rdi) */
                     : : "D"(area), "a"(COMPONENT), "d"(0) : "memory");
    host(SWITCH);
    if (MODE < 3) {
        for (uint32_t i = 0; i < RECORDS; i++) check(rdmsr(IA32_LBR_FROM + i) == 0x1000 + i);
        check(rdmsr(0x1DD) == 0x77);
    }
    host(CLOSE);
}

void test(void) {
    static const uint8_t traced[][4] = {
        {TRACE}, {TRACE, CLOSE}, {TRACE, SAMPLE, CLOSE, BRANCHES}, {TRACE, SWITCH, SAMPLE, CLOSE},
        {NOTHING, TRACE, MIGRATE, SAMPLE}, {EXCLUDE, TRACE, SWITCH, CLOSE},
    };
    static const uint8_t excluded[][4] = {
        {EXCLUDE}, {EXCLUDE, CLOSE}, {EXCLUDE, SAMPLE, SWITCH, BRANCHES},
        {SWITCH, EXCLUDE, SAMPLE, SAMPLE}, {MIGRATE, EXCLUDE, MIGRATE, CLOSE},
        {SWITCH, BRANCHES, MIGRATE, SWITCH},
    };
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0; or $0x40000, %0; mov %0, %%cr4" : "=r"(cr4) : : "memory");
    wrmsr(IA32_XSS, COMPONENT);
    for (int i = 0; i < 6; i++) contend(traced[i], 4, true);
    for (int i = 0; i < 6; i++) contend(excluded[i], 4, false);
    for (uint8_t point = NOTHING; point <= SWITCH; point++) {
        values(point);
        round_trip(point);
    }
    check(leaks == 0);
}
