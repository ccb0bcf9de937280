/* Privilege levels: SYSCALL, SYSRET, IRET, INT n and exceptions out of ring 3. */
#include "guest.h"

enum { STAR = 0xC0000081u, LSTAR = 0xC0000082u, FMASK = 0xC0000084u, EFER = 0xC0000080u };
#define ONES 0xFFFFFFFFFFFFFFFFull

static uint64_t from(uint32_t i) { return rdmsr(IA32_LBR_FROM + i); }
static uint64_t to(uint32_t i) { return rdmsr(IA32_LBR_TO + i); }

extern char user_iretq[], stubs[], u_start[], u_syscall[], u_after[], u_jmp[], u_jmp_to[], u_int[],
    u_fault[], u_skip[], k_entry[], k_sysret[];

__attribute__((naked)) static void user(void) {
    __asm__(".globl u_start, u_syscall, u_after, u_jmp, u_jmp_to, u_int\n"
            "u_start: nop\n"
            "u_jmp: jmp u_jmp_to\n nop\n"
            "u_jmp_to: nop\n"
            "u_syscall: syscall\n"
            "u_after: nop\n"
            "u_int: int $0x80\n");
}

__attribute__((naked)) static void entry(void) {
    __asm__(".globl k_entry, k_sysret\n"
            "k_entry: nop\n"
            "k_sysret: sysretq\n");
}

/* A privileged instruction in ring 3. */
__attribute__((naked)) static void offender(void) {
    __asm__(".globl u_fault, u_skip\n"
            "mov $0x14ce, %ecx\n xor %eax, %eax\n xor %edx, %edx\n"
            "u_fault: wrmsr\n"
            "u_skip: int $0x80\n");
}

static uint64_t fault_rip, fault_cs, fault_error;
static void fault(frame *f) {
    fault_rip = f->rip;
    fault_cs = f->cs;
    fault_error = f->error;
    f->rip += 2;
}

static void record(uint64_t ctl, void (*code)(void)) {
    wrmsr(IA32_LBR_DEPTH, 32);
    wrmsr(IA32_LBR_CTL, ctl | LBREN);
    run_user(code);
    wrmsr(IA32_LBR_CTL, 0);
}

/* Newest record that goes to `target`, or 32. */
static uint32_t find(uint64_t target) {
    uint32_t i = 0;
    while (i < 32 && to(i) != target) i++;
    return i;
}

static void both(void) {
    record(LBR_OS | LBR_USR | LBR_ALL, user);
    uint32_t i = find((uint64_t)user);
    check(i < 32 && from(i) == (uint64_t)user_iretq);
    check(from(i - 1) == (uint64_t)u_jmp && to(i - 1) == (uint64_t)u_jmp_to);
    check(from(i - 2) == (uint64_t)u_syscall && to(i - 2) == (uint64_t)entry);
    check(from(i - 3) == (uint64_t)k_sysret && to(i - 3) == (uint64_t)u_after);
    check(from(i - 4) == (uint64_t)u_int && to(i - 4) == (uint64_t)stubs + 16 * 0x80);
    check((rdmsr(IA32_LBR_INFO + i - 2) >> 56 & 8) == 8);
}

/* USR only: what ends in ring 3, with FROM all ones where it began in ring 0. */
static void user_only(void) {
    record(LBR_USR | LBR_ALL, user);
    check(from(0) == ONES && to(0) == (uint64_t)u_after);
    check(from(1) == (uint64_t)u_jmp && to(1) == (uint64_t)u_jmp_to);
    check(from(2) == ONES && to(2) == (uint64_t)user);
    check(from(3) == 0);
}

/* OS only: what ends in ring 0. */
static void kernel_only(void) {
    record(LBR_OS | LBR_OTHER, user);
    uint32_t i = find((uint64_t)entry);
    check(i < 32 && from(i) == ONES);
    i = find((uint64_t)stubs + 16 * 0x80);
    check(i < 32 && from(i) == ONES);
    check(find((uint64_t)u_after) == 32 && find((uint64_t)user) == 32);
}

static void exceptions(void) {
    handlers[13] = fault;
    record(LBR_OS | LBR_USR | LBR_OTHER, offender);
    check(fault_rip == (uint64_t)u_fault && (fault_cs & 3) == 3 && fault_error == 0);
    uint32_t i = find((uint64_t)stubs + 16 * 13);
    check(i < 32 && from(i) == (uint64_t)u_fault);
    check(to(i - 1) == (uint64_t)u_skip);      /* the handler's IRET */
    /* LER: the last branch before the last exception or interrupt, INT 0x80. */
    check(rdmsr(0x1DE) == (uint64_t)u_skip);
    handlers[13] = NULL;
}

/* A page fault in ring 3: error code and CR2, and again, for no exception is forgotten. */
extern char u_store[];
__attribute__((naked)) static void stray(void) {
    __asm__(".globl u_store\n"
            "movabs $0x7000000123, %rax\n"
            "u_store: movb %al, (%rax)\n" /* two bytes, skipped by the handler */
            "int $0x80\n");
}

static void page_faults(void) {
    for (int round = 0; round < 3; round++) {
        uint64_t cr2 = 0;
        __asm__ volatile("mov %0, %%cr2" : : "r"(cr2));
        handlers[14] = fault;
        record(LBR_OS | LBR_USR | LBR_OTHER, stray);
        __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
        check(fault_rip == (uint64_t)u_store && fault_error == 6 && cr2 == 0x7000000123);
        uint32_t i = find((uint64_t)stubs + 16 * 14);
        check(i < 32 && from(i) == (uint64_t)u_store);
        handlers[13] = fault;
        record(LBR_OS, offender);
        check(fault_rip == (uint64_t)u_fault && fault_error == 0);
        handlers[13] = handlers[14] = NULL;
    }
}

void test(void) {
    wrmsr(EFER, rdmsr(EFER) | 1);
    wrmsr(STAR, 8ull << 32 | 0x10ull << 48);
    wrmsr(LSTAR, (uint64_t)entry);
    wrmsr(FMASK, 0x200);
    both();
    user_only();
    kernel_only();
    exceptions();
    page_faults();
}
