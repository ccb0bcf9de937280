/* The local APIC's timer, which wakes from HLT, and the I/O APIC's registers. */
#include "guest.h"

enum { VECTOR = 0x42, ONE_SHOT = VECTOR, PERIODIC = 1 << 17 | VECTOR, MASKED = 1 << 16 | VECTOR };
#define APIC(offset) (*(volatile uint32_t *)(0xFEE00000ull + (offset)))
#define IOAPIC(offset) (*(volatile uint32_t *)(0xFEC00000ull + (offset)))

static volatile int interrupts;
static uint64_t from_ip, to_ip, type;
extern char stubs[];

static void tick(frame *f) {
    (void)f;
    interrupts++;
    APIC(0xB0) = 0; /* EOI */
}

static void spin(uint64_t rounds) {
    __asm__ volatile("1: dec %0\n jnz 1b" : "+r"(rounds) : : "cc");
}

static void set(uint32_t entry, uint32_t count) {
    interrupts = 0;
    APIC(0x320) = entry;
    APIC(0x3E0) = 0xB; /* undivided */
    APIC(0x380) = count;
}

static void one_shot(void) {
    set(ONE_SHOT, 1000);
    uint32_t left = APIC(0x390);
    check(left > 0 && left <= 1000);
    spin(100);
    check(interrupts == 0 && APIC(0x390) < left && APIC(0x390) > 0);
    spin(1000);
    check(interrupts == 1 && APIC(0x390) == 0);
    spin(5000);
    check(interrupts == 1);
}

static void divided(void) {
    interrupts = 0;
    APIC(0x320) = ONE_SHOT;
    APIC(0x3E0) = 0x1; /* by 4 */
    APIC(0x380) = 1000;
    spin(1500);
    check(interrupts == 0 && APIC(0x390) <= 250 && APIC(0x390) >= 200);
    spin(1000);
    check(interrupts == 1);
}

static void periodic(void) {
    set(PERIODIC, 1000);
    spin(2750);
    check(interrupts == 5);
    APIC(0x380) = 0;
    spin(5000);
    check(interrupts == 5);
}

static void masked(void) {
    set(MASKED, 100);
    spin(1000);
    check(interrupts == 0 && APIC(0x390) == 0);
}

/* HLT until it ticks; LBRs record the interrupt. */
static void asleep(void) {
    wrmsr(IA32_LBR_DEPTH, rdmsr(IA32_LBR_DEPTH));
    __asm__ volatile("cli");
    set(ONE_SHOT, 1000000000);
    wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_OTHER);
    __asm__ volatile("sti\n hlt" : : : "memory");
    wrmsr(IA32_LBR_CTL, 0);
    check(interrupts == 1);
    from_ip = rdmsr(IA32_LBR_FROM + 1);
    to_ip = rdmsr(IA32_LBR_TO + 1);
    type = rdmsr(IA32_LBR_INFO + 1) >> 56 & 15;
    check(to_ip == (uint64_t)stubs + 16 * VECTOR && (type & 8));
    check(rdmsr(IA32_LBR_TO) == from_ip); /* IRET returns after the HLT */
}

static void io_apic(void) {
    IOAPIC(0) = 1;
    check((IOAPIC(0x10) >> 16 & 0xFF) == 23);
    IOAPIC(0) = 0x10 + 2 * 4;
    check(IOAPIC(0x10) == 1 << 16);
    IOAPIC(0x10) = 0x5042; /* the two bits that only report stay 0 */
    check(IOAPIC(0x10) == 0x42);
    IOAPIC(0) = 0x10 + 2 * 24;
    check(IOAPIC(0x10) == 0);
}

void test(void) {
    handlers[VECTOR] = tick;
    APIC(0xF0) = 0x1FF;
    __asm__ volatile("sti");
    one_shot();
    divided();
    periodic();
    masked();
    asleep();
    io_apic();
}
