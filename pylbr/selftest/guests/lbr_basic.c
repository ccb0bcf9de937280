/* Enumeration, #GP on bad values, filters, depth, reset by DEPTH. */
#include "guest.h"

static uint64_t from(uint32_t i) { return rdmsr(IA32_LBR_FROM + i); }
static uint64_t to(uint32_t i) { return rdmsr(IA32_LBR_TO + i); }
static uint64_t type(uint32_t i) { return rdmsr(IA32_LBR_INFO + i) >> 56 & 15; }

/* One branch of each near class, between two addresses that it reports. */
extern char c_jcc[], c_jcc_to[], c_call[], c_called[], c_ret[], c_back[], c_jmp[], c_jmp_to[];
__attribute__((noinline, naked)) static void branches(void) {
    __asm__("xor %eax, %eax\n"
            ".globl c_jcc, c_jcc_to, c_call, c_called, c_ret, c_back, c_jmp, c_jmp_to\n"
            "c_jcc: jz c_jcc_to\n nop\n"
            "c_jcc_to: nop\n"
            "c_jmp: jmp c_jmp_to\n nop\n"
            "c_jmp_to:\n"
            "c_call: call c_called\n"
            "c_back: ret\n"
            "c_called:\n"
            "c_ret: ret\n");
}

static void record(uint64_t ctl) {
    wrmsr(IA32_LBR_DEPTH, rdmsr(IA32_LBR_DEPTH));
    wrmsr(IA32_LBR_CTL, ctl | LBREN);
    branches();
    wrmsr(IA32_LBR_CTL, 0);
}

static bool holds(uint32_t i, char *source, char *target, uint64_t br_type) {
    return from(i) == (uint64_t)source && to(i) == (uint64_t)target && type(i) == br_type;
}

static uint32_t filled(void) {
    uint32_t n = 0, depth = (uint32_t)rdmsr(IA32_LBR_DEPTH);
    while (n < depth && from(n)) n++;
    return n;
}

static void enumeration(void) {
    uint64_t value;
    check(cpuid(7, 0).edx >> 19 & 1);
    uint32_t bitmap = cpuid(0x1C, 0).eax & 0xFF;
    check(bitmap != 0);
    for (uint32_t depth = 0; depth <= 72; depth++) {
        bool offered = depth && depth % 8 == 0 && depth <= 64 && bitmap >> (depth / 8 - 1) & 1;
        check(wrmsr_safe(IA32_LBR_DEPTH, depth) == (offered ? -1 : 13));
        if (!offered) continue;
        check(rdmsr(IA32_LBR_DEPTH) == depth);
        check(rdmsr_safe(IA32_LBR_FROM + depth - 1, &value) == -1);
        check(depth == 32 || rdmsr_safe(IA32_LBR_FROM + depth, &value) == 13);
        check(depth == 32 || wrmsr_safe(IA32_LBR_INFO + depth, 0) == 13);
    }
    check(wrmsr_safe(IA32_LBR_DEPTH, 1ull << 40 | 8) == 13);
    for (int bit = 0; bit < 64; bit++) {
        bool defined = bit < 4 || (bit >= 16 && bit <= 22);
        check(wrmsr_safe(IA32_LBR_CTL, 1ull << bit & ~1ull) == (defined ? -1 : 13));
    }
    wrmsr(IA32_LBR_CTL, 0);
}

static void filters(void) {
    record(LBR_OS | LBR_COND);
    check(filled() == 1 && holds(0, c_jcc, c_jcc_to, 0));
    record(LBR_OS | LBR_REL_JMP);
    check(filled() == 1 && holds(0, c_jmp, c_jmp_to, 2));
    record(LBR_OS | LBR_REL_CALL);
    check(filled() == 2 && holds(0, c_call, c_called, 4) && to(1) == (uint64_t)branches);
    record(LBR_OS | LBR_RET);
    check(filled() == 2 && from(0) == (uint64_t)c_back && holds(1, c_ret, c_back, 5));
    record(LBR_OS | LBR_ALL);
    check(filled() == 6 && holds(1, c_ret, c_back, 5) && holds(2, c_call, c_called, 4) &&
          holds(3, c_jmp, c_jmp_to, 2) && holds(4, c_jcc, c_jcc_to, 0));
    record(LBR_USR | LBR_ALL);
    check(filled() == 0);
    record(LBR_OS);
    check(filled() == 0);
}

static void depth(uint32_t depth) {
    wrmsr(IA32_LBR_DEPTH, depth);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_COND);
    for (volatile int i = 0; i < 100; i++) {}
    wrmsr(IA32_LBR_CTL, 0);
    for (uint32_t i = 0; i < depth; i++) check(from(i) != 0 && to(i) == to(0));
    wrmsr(IA32_LBR_DEPTH, depth); /* the same value resets, too */
    for (uint32_t i = 0; i < depth; i++) check(from(i) == 0 && to(i) == 0 && type(i) == 0);
    wrmsr(IA32_LBR_FROM + 3, 0x1234);
    check(from(3) == 0x1234);
    wrmsr(IA32_LBR_DEPTH, 32);
    check(from(3) == 0);
}

/* #DB clears LBREn, and only that; it is not recorded. */
static uint64_t seen_ctl;
static void debug(frame *f) {
    (void)f;
    seen_ctl = rdmsr(IA32_LBR_CTL);
}

static void debug_exception(void) {
    handlers[1] = debug;
    wrmsr(IA32_LBR_DEPTH, 32);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_ALL);
    __asm__ volatile(".byte 0xF1"); /* INT1 */
    check(seen_ctl == (LBR_OS | LBR_ALL));
    check(rdmsr(IA32_LBR_CTL) == (LBR_OS | LBR_ALL));
    check(filled() == 0);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_ALL);
    __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; 1: pushfq; andl $~0x100, (%%rsp); popfq"
                     : : : "memory", "cc"); /* single step */
    check(rdmsr(IA32_LBR_CTL) == (LBR_OS | LBR_ALL));
    wrmsr(IA32_LBR_CTL, 0);
    handlers[1] = NULL;
}

void test(void) {
    enumeration();
    filters();
    for (uint32_t n = 8; n <= 32; n += 8)
        if (depth_offered(n)) depth(n);
    debug_exception();
}
