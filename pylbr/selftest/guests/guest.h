/* A minimal kernel for tests: what every guest needs and nothing else. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of MSRs come from the build: IA32_DEBUGCTL, IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_XSS. */
#define IA32_LBR_INFO IA32_LBR_0_INFO
#define IA32_LBR_FROM IA32_LBR_0_FROM_IP
#define IA32_LBR_TO IA32_LBR_0_TO_IP
#define LBREN CTL_LBREN
#define LBR_OS 2u
#define LBR_USR 4u
#define LBR_CALL_STACK 8u
#define LBR_COND 0x10000u
#define LBR_REL_JMP 0x20000u
#define LBR_REL_CALL 0x80000u
#define LBR_IND_CALL 0x100000u
#define LBR_RET 0x200000u
#define LBR_OTHER 0x400000u
#define LBR_ALL 0x7F0000u

static inline void out8(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void wrmsr(uint32_t index, uint64_t value) {
    __asm__ volatile("wrmsr" : : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static inline uint64_t rdmsr(uint32_t index) {
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return (uint64_t)high << 32 | low;
}

typedef struct { uint32_t eax, ebx, ecx, edx; } cpuid_result;

static inline cpuid_result cpuid(uint32_t leaf, uint32_t subleaf) {
    cpuid_result r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

/* IA32_LBR_DEPTH may be set to this. */
static inline bool depth_offered(uint32_t depth) {
    return cpuid(0x1C, 0).eax >> (depth / 8 - 1) & 1;
}

/* kernel.c */
void *memset(void *to, int value, size_t size);
void put(const char *text);
void put_hex(uint64_t value);
void end(int code) __attribute__((noreturn));
void check_at(bool holds, const char *what, int line);
#define check(condition) check_at((condition), #condition, __LINE__)

/* RDMSR and WRMSR that may fault: the vector, or -1. */
int rdmsr_safe(uint32_t index, uint64_t *value);
int wrmsr_safe(uint32_t index, uint64_t value);

typedef struct {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
} frame;
typedef void (*handler)(frame *);
/* The handler of a vector; without one, an exception ends the test. */
extern handler handlers[256];
extern uint64_t gdt[], idt[], tss[];
void user_gate(int vector); /* let ring 3 use it */
/* Run `code` in ring 3 on a stack of its own; comes back when it does INT 0x80. */
void run_user(void (*code)(void));

/* The guest's test. */
void test(void);
