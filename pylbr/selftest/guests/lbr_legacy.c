/* Legacy LBRs of 680H: enumeration by #GP, TOS, LBR_SELECT, #DB, freeze; and a host that wants
 * them, too, where MODE is how KVM shares them: 0 not at all, 1 the host outranks the guest,
 * 2 as merged. */
#include "guest.h"

enum {
    DEBUGCTL_LBR = 1, SELECT = 0x1C8, TOS = 0x1C9, FROM = 0x680, TO = 0x6C0, CAPABILITIES = 0x345,
    CPL_EQ_0 = 1, JCC = 1 << 2, REL_CALL = 1 << 3, RET = 1 << 5, HOST_PORT = 0xF5,
};
enum { NOTHING, PIN, CLOSE, SWITCH };
#define HOST 0xFFFFC0DEu
#define ADDRESS 0xFFFFFFFFFFFFull

static uint32_t depth;

/* The i-th from the newest. */
static uint32_t number(uint32_t i) { return (uint32_t)(rdmsr(TOS) - i) & (depth - 1); }
static uint64_t from(uint32_t i) { return rdmsr(FROM + number(i)) & ADDRESS; }
static uint64_t to(uint32_t i) { return rdmsr(TO + number(i)) & ADDRESS; }

extern char l_jcc[], l_jcc_to[], l_call[], l_called[], l_ret[], l_back[];
__attribute__((noinline, naked)) static void branches(void) {
    __asm__("xor %eax, %eax\n"
            ".globl l_jcc, l_jcc_to, l_call, l_called, l_ret, l_back\n"
            "l_jcc: jz l_jcc_to\n nop\n"
            "l_jcc_to: nop\n"
            "l_call: call l_called\n"
            "l_back: ret\n"
            "l_called:\n"
            "l_ret: ret\n");
}

static void clear(void) {
    for (uint32_t n = 0; n < depth; n++) {
        wrmsr(FROM + n, 0);
        wrmsr(TO + n, 0);
    }
}

static void record(uint64_t select) {
    wrmsr(SELECT, select);
    clear();
    wrmsr(IA32_DEBUGCTL, DEBUGCTL_LBR);
    branches();
    wrmsr(IA32_DEBUGCTL, 0);
}

static void enumeration(void) {
    uint64_t value;
    check(rdmsr(CAPABILITIES) & 0x3F);
    while (depth < 33 && rdmsr_safe(FROM + depth, &value) == -1) depth++;
    check(depth == 16 || depth == 32);
    check(wrmsr_safe(TO + depth, 0) == 13);
    check(wrmsr_safe(SELECT, 1 << 12) == 13);
    for (uint32_t n = 0; n < depth; n++) {
        wrmsr(TOS, n);
        check(rdmsr(TOS) == n);
    }
    check(wrmsr_safe(TOS, depth) == 13 || rdmsr(TOS) < depth);
}

static void filters(void) {
    record(0);
    check(from(1) == (uint64_t)l_ret && to(1) == (uint64_t)l_back);
    check(from(2) == (uint64_t)l_call && to(2) == (uint64_t)l_called);
    check(from(3) == (uint64_t)l_jcc && to(3) == (uint64_t)l_jcc_to);
    record(REL_CALL | RET);
    check(from(0) == (uint64_t)l_jcc);
    record(JCC);
    check(from(2) == (uint64_t)l_call);
    record(CPL_EQ_0);
    check(from(0) == 0);
    wrmsr(SELECT, 0);
}

static uint64_t seen;
static void debug(frame *f) {
    (void)f;
    seen = rdmsr(IA32_DEBUGCTL);
}

static void debug_exception(void) {
    handlers[1] = debug;
    wrmsr(IA32_DEBUGCTL, DEBUGCTL_LBR | 1 << 11);
    __asm__ volatile(".byte 0xF1");
    check(seen == 1 << 11 && rdmsr(IA32_DEBUGCTL) == 1 << 11);
    wrmsr(IA32_DEBUGCTL, 0);
    handlers[1] = NULL;
}

static uint32_t host_records(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < depth; i++) n += (rdmsr(FROM + i) & ADDRESS) >> 32 == (HOST & 0xFFFF);
    return n;
}

/* perf pins an event to the CPU while we record. */
static void contend(void) {
    record(0);
    clear();
    wrmsr(IA32_DEBUGCTL, DEBUGCTL_LBR);
    branches();
    out8(HOST_PORT, PIN);
    branches();
    wrmsr(IA32_DEBUGCTL, 0);
    if (MODE == 1) { /* as designed: reads give 0, and nothing reports it */
        for (uint32_t i = 0; i < depth; i++) check(rdmsr(FROM + i) == 0);
        wrmsr(FROM, 0x1234);
        check(rdmsr(FROM) == 0 && rdmsr(TOS) == 0);
    } else {
        check(from(1) == (uint64_t)l_ret);
    }
    check(host_records() == 0);
    out8(HOST_PORT, CLOSE);
    out8(HOST_PORT, SWITCH);
    check(host_records() == 0);
}

void test(void) {
    if (MODE == 2) {
        /* Our first access finds the host's event active: the host's records are there. */
        depth = 16;
        out8(HOST_PORT, PIN);
        check(host_records() == 0);
        out8(HOST_PORT, CLOSE);
        return;
    }
    enumeration();
    filters();
    debug_exception();
    contend();
}
