/* What a kernel image of a PC finds at I/O ports: the UART, fw_cfg, and nothing elsewhere; and the
 * local APIC as it is reset, switched to x2APIC mode and asked for its number. */
#include "guest.h"

enum { COM1 = 0x3F8, DIVISOR_LATCH = 0x80, APIC_BASE = 0x1B, EXTD = 1 << 10, EN = 1 << 11 };
enum { X2APIC_ID = 0x802, X2APIC_ICR = 0x830 };
/* For the interrupt command register: to all others, as processors are started. */
enum { INIT = 3 << 18 | 1 << 14 | 5 << 8, START_UP = 3 << 18 | 6 << 8 | 1, PENDING = 1 << 12 };
#define APIC(offset) (*(volatile uint32_t *)(0xFEE00000ull + (offset)))

static uint8_t in8(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static uint64_t item(uint16_t number, int bytes) {
    uint64_t value = 0;
    __asm__ volatile("outw %0, %1" : : "a"(number), "Nd"((uint16_t)0x510));
    for (int i = 0; i < bytes; i++) value |= (uint64_t)in8(0x511) << 8 * i;
    return value;
}

static void uart(void) {
    out8(COM1 + 3, 3 | DIVISOR_LATCH);
    out8(COM1, 'X'); /* a divisor, not a character */
    out8(COM1 + 1, 'Y');
    check(in8(COM1) == 'X' && in8(COM1 + 1) == 'Y');
    out8(COM1 + 3, 3);
    out8(COM1 + 1, 0);
    out8(COM1 + 7, 0x5A);
    check(in8(COM1 + 7) == 0x5A && in8(COM1 + 3) == 3 && in8(COM1 + 1) == 0);
    check((in8(COM1 + 5) & 0x61) == 0x60);
    check(in8(COM1 + 2) & 1);
}

static void firmware(void) {
    check(item(0, 4) == 0x554D4551);
    check(item(5, 2) == 1 && item(0xF, 2) == 1);
    check(item(3, 8) == 64ull << 20);
    check(item(0x19, 4) == 0 && item(0x4242, 4) == 0 && in8(0x511) == 0);
}

static uint8_t cmos(uint8_t index) {
    out8(0x70, index);
    return in8(0x71);
}

static uint64_t rdtsc(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void clock(void) {
    check(!(cmos(0x0A) & 0x80));           /* no update is in progress */
    check(cmos(0x0D) == 0x80 && cmos(0x0B) == 2);
    check(cmos(9) == 0x26 && cmos(8) == 1 && cmos(7) == 1 && cmos(4) == 0 && cmos(0x32) == 0x20);
    out8(0x70, 0x40);
    out8(0x71, 0x5A);
    check(cmos(0x40) == 0x5A && cmos(0x41) == 0);
    uint64_t first = rdtsc(), second = rdtsc();
    check(second - first > 0 && second - first < 16); /* a tick is an instruction */
}

static void apic(void) {
    uint64_t base = rdmsr(APIC_BASE);
    check((base & ~0xFFFull) == 0xFEE00000 && base >> 11 & 1);
    wrmsr(APIC_BASE, base & ~(uint64_t)EN);
    check(rdmsr(APIC_BASE) == (base & ~(uint64_t)EN));
    wrmsr(APIC_BASE, base);
    APIC(0xF0) = 0x1FF;
    check(APIC(0xF0) == 0x1FF);
    check(APIC(0x20) >> 24 == 0);
    APIC(0x310) = 0;
    APIC(0x300) = INIT; /* nothing receives it, this processor least of all */
    APIC(0x300) = START_UP;
    check(APIC(0x300) == START_UP && !(APIC(0x300) & PENDING));
    check(cpuid(1, 0).ecx >> 21 & 1);
    wrmsr(APIC_BASE, base | EXTD);
    check(rdmsr(X2APIC_ID) == 0);
    check(wrmsr_safe(X2APIC_ID, 1) == 13);
    wrmsr(X2APIC_ICR, INIT);
    wrmsr(X2APIC_ICR, START_UP);
    check(rdmsr(X2APIC_ICR) == START_UP);
}

void test(void) {
    uart();
    firmware();
    clock();
    check((in8(0x2F8 + 5) & 0x61) == 0x60);
    check(in8(0x60) == 0xFF && in8(0x3E8 + 5) == 0xFF);
    out8(0x21, 0xFF);
    out8(0xA1, 0xFF);
    apic();
}
