/* Tables, console, exceptions. */
#include "guest.h"

enum { COM1 = 0x3F8, EXIT_PORT = 0xF4, GP = 13, LEAVE = 0x80, TSS = 0x28 };

extern char stubs[], leave_user[];
void enter_user(uint64_t rip, uint64_t rsp);

uint64_t gdt[7] = {0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF,
                   0x00AFFB000000FFFF};
uint64_t idt[512];
uint64_t tss[16];
handler handlers[256];
static uint8_t interrupt_stack[0x4000] __attribute__((aligned(16)));
static uint8_t user_stack[0x4000] __attribute__((aligned(16)));
static volatile int skipped; /* vector of the fault that a safe access had, or -1 */
static volatile uint64_t skip_at;
static int failures, checks;

void put(const char *text) {
    while (*text) out8(COM1, (uint8_t)*text++);
}

void put_hex(uint64_t value) {
    for (int shift = 60; shift >= 0; shift -= 4) out8(COM1, "0123456789abcdef"[value >> shift & 15]);
}

void end(int code) {
    out8(EXIT_PORT, (uint8_t)code);
    for (;;) __asm__ volatile("cli; hlt");
}

static void put_number(int value) {
    if (value >= 10) put_number(value / 10);
    out8(COM1, (uint8_t)('0' + value % 10));
}

void check_at(bool holds, const char *what, int line) {
    checks++;
    if (holds) return;
    failures++;
    put("FAIL ");
    put_number(line);
    put(": ");
    put(what);
    put("\n");
}

void interrupt(frame *f) {
    if (handlers[f->vector]) {
        handlers[f->vector](f);
    } else if (f->vector == GP && f->rip == skip_at) {
        skipped = GP;
        f->rip += 2;
    } else {
        put("unexpected exception ");
        put_number((int)f->vector);
        put(" at ");
        put_hex(f->rip);
        put("\n");
        end(99);
    }
}

int rdmsr_safe(uint32_t index, uint64_t *value) {
    uint32_t low, high;
    skipped = -1;
    __asm__ volatile("leaq 1f(%%rip), %%rax; movq %%rax, %2; 1: rdmsr"
                     : "=&a"(low), "=d"(high), "=m"(skip_at) : "c"(index) : "memory");
    *value = (uint64_t)high << 32 | low;
    skip_at = 0;
    return skipped;
}

int wrmsr_safe(uint32_t index, uint64_t value) {
    skipped = -1;
    __asm__ volatile("leaq 1f(%%rip), %%r8; movq %%r8, %0; 1: wrmsr"
                     : "=m"(skip_at)
                     : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "r8", "memory");
    skip_at = 0;
    return skipped;
}

static void gate(int vector, uint64_t to, int dpl) {
    idt[2 * vector] = (to & 0xFFFF) | 8u << 16 | (uint64_t)(0x8E | dpl << 5) << 40 |
                      (to >> 16 & 0xFFFF) << 48;
    idt[2 * vector + 1] = to >> 32;
}

void user_gate(int vector) { gate(vector, (uint64_t)stubs + 16 * (uint64_t)vector, 3); }

static void back(frame *f) {
    f->rip = (uint64_t)leave_user;
    f->cs = 8;
    f->ss = 0;
    f->rflags &= ~0x100ull;
}

void run_user(void (*code)(void)) {
    handlers[LEAVE] = back;
    user_gate(LEAVE);
    enter_user((uint64_t)code, (uint64_t)user_stack + sizeof user_stack - 8);
}

static void tables(void) {
    struct __attribute__((packed)) { uint16_t limit; uint64_t base; } pointer;
    uint64_t base = (uint64_t)tss;
    uint64_t top = (uint64_t)interrupt_stack + sizeof interrupt_stack;
    __builtin_memcpy((char *)tss + 4, &top, 8);
    gdt[5] = 103 | (base & 0xFFFFFF) << 16 | 0x89ull << 40 | (base >> 24 & 0xFF) << 56;
    gdt[6] = base >> 32;
    for (int i = 0; i < 256; i++) gate(i, (uint64_t)stubs + 16 * (uint64_t)i, 0);
    pointer.limit = sizeof gdt - 1;
    pointer.base = (uint64_t)gdt;
    __asm__ volatile("lgdt %0; pushq $8; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:"
                     : : "m"(pointer) : "rax", "memory");
    pointer.limit = sizeof idt - 1;
    pointer.base = (uint64_t)idt;
    __asm__ volatile("lidt %0; ltr %w1" : : "m"(pointer), "r"(TSS) : "memory");
}

void kernel(void) {
    tables();
    test();
    put_number(checks - failures);
    put(" passed, ");
    put_number(failures);
    put(" failed\n");
    end(failures ? 1 : 0);
}

void *memset(void *to, int value, size_t size) {
    for (size_t i = 0; i < size; i++) ((volatile char *)to)[i] = (char)value;
    return to;
}
