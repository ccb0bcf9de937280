/* Call-stack mode on recursive code: what is left are the calls that have not returned. */
#include "guest.h"

static uint64_t from(uint32_t i) { return rdmsr(IA32_LBR_FROM + i); }
static uint64_t to(uint32_t i) { return rdmsr(IA32_LBR_TO + i); }

enum { MODE = LBREN | LBR_OS | LBR_CALL_STACK | LBR_REL_CALL | LBR_IND_CALL | LBR_RET };

/* Recursion that stops recording at its deepest point. */
extern char r_entry[], r_call[], r_first[];
__attribute__((used, naked)) static void recurse(void) {
    __asm__(".globl r_entry, r_call\n"
            "r_entry: call leaf\n" /* comes and goes: no trace of it */
            "test %rdi, %rdi\n jz 1f\n dec %rdi\n"
            "r_call: call r_entry\n ret\n"
            "1: mov $0x14ce, %ecx\n xor %eax, %eax\n xor %edx, %edx\n wrmsr\n ret\n"
            "leaf: ret\n");
}

__attribute__((noinline, naked)) static void first(uint64_t depth) {
    (void)depth;
    __asm__(".globl r_first\n r_first: call r_entry\n ret\n");
}

static void run(uint64_t depth) {
    wrmsr(IA32_LBR_DEPTH, 32);
    wrmsr(IA32_LBR_CTL, MODE);
    first(depth);
}

void test(void) {
    for (uint64_t depth = 0; depth < 40; depth += 3) {
        run(depth);
        for (uint32_t i = 0; i < 32; i++) {
            if (i == 31 && depth >= 30)
                check(from(i) == 0); /* the deepest call of leaf pushed it out */
            else if (i < depth)
                check(from(i) == (uint64_t)r_call && to(i) == (uint64_t)r_entry);
            else if (i == depth)
                check(from(i) == (uint64_t)r_first && to(i) == (uint64_t)r_entry);
            else if (i == depth + 1)
                check(to(i) == (uint64_t)first);
            else
                check(from(i) == 0 && to(i) == 0);
        }
    }
    /* Everything returns: nothing is left but what a caller of ours did. */
    wrmsr(IA32_LBR_DEPTH, 32);
    wrmsr(IA32_LBR_CTL, MODE);
    __asm__ volatile("call 1f; jmp 2f; 1: ret; 2:" : : : "memory");
    wrmsr(IA32_LBR_CTL, 0);
    check(from(0) == 0);
}
