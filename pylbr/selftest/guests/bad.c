/* Guests that crash, one per CASE; none may end the host. */
#include "guest.h"

static void load_idt(uint64_t base, uint16_t limit) {
    struct __attribute__((packed)) { uint16_t limit; uint64_t base; } pointer = {limit, base};
    __asm__ volatile("lidt %0" : : "m"(pointer) : "memory");
}

static void jump(uint64_t to) { __asm__ volatile("jmp *%0" : : "r"(to) : "memory"); }

static void every_pattern(uint32_t index) {
    static const uint64_t patterns[] = {0, ~0ull, 1, 0xAAAAAAAAAAAAAAAA, 0x8000000000000000,
                                        0x7FFFFFFFFFFF};
    uint64_t value;
    for (uint32_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        wrmsr_safe(index, patterns[p]);
        rdmsr_safe(index, &value);
    }
}

/* Every MSR of the ranges that exist, with patterns; a fault is an answer, too. */
static void hammer(void) {
    static const uint32_t starts[] = {
        0, 0xC0, 0x180, 0x1C0, 0x300, 0x340, 0x380, 0x480, 0x4C0, 0x560, 0x600, 0x680, 0x6C0,
        0xDA0, 0xDC0, 0x1200, 0x14C0, 0x1500, 0x1600, 0x40000000, 0xC0000000, 0xC0010000,
        0xFFFFFF00};
    for (uint32_t range = 0; range < sizeof starts / sizeof *starts; range++)
        for (uint32_t i = 0; i < MSRS; i++) {
            uint32_t index = starts[range] + i;
            if (index < starts[range]) break;
            if (index >= 0xC0000080 && index < 0xC0000105) continue; /* EFER, SYSCALL, GS ... */
            if (index == 0x1B || (index >= 0x800 && index < 0x840)) continue; /* the APIC */
            every_pattern(index);
        }
    wrmsr_safe(IA32_LBR_CTL, 0);
}

/* Those that a kernel does not survive: what hammer() leaves out. */
static void hammer_the_rest(void) {
    for (uint32_t index = 0x800; index < 0x840; index++) every_pattern(index);
    for (uint32_t index = 0xC0000081; index < 0xC0000105; index++) every_pattern(index);
    every_pattern(0x1B);
    for (uint32_t index = 0x800; index < 0x840; index++) every_pattern(index); /* x2APIC, perhaps */
    every_pattern(0xC0000080);
}

void test(void) {
    if (cpuid(7, 0).edx >> 19 & 1)
        wrmsr(IA32_LBR_CTL, LBREN | LBR_OS | LBR_ALL);
    else
        wrmsr(IA32_DEBUGCTL, 1);
    for (volatile int i = 0; i < 3; i++) {} /* something for the report */
    switch (CASE) {
    case 0: /* no IDT: a triple fault */
        load_idt(0, 0);
        __asm__ volatile("ud2");
        break;
    case 1: /* an IDT of rubbish */
        for (int i = 0; i < 512; i++) idt[i] = 0x123456789ABCDEFull * (uint64_t)i;
        jump(0x3FFFFF000);
        break;
    case 2: /* an IDT that is not there */
        load_idt(0x123456789000, 0xFFF);
        jump(0x8000000000);
        break;
    case 3: /* an IDT beyond the canonical addresses */
        load_idt(0x8000000000000000, 0xFFF);
        __asm__ volatile("int3");
        break;
    case 4: /* into physical memory that does not exist */
        jump(0xC0000000);
        break;
    case 5: /* reads there */
        (void)*(volatile uint64_t *)0xC0000000ull;
        break;
    case 6: /* for ever */
        for (;;) {}
    case 7: /* for ever, halting with nothing to come */
        for (;;) __asm__ volatile("sti; hlt");
    case 8: /* a stack that is not there */
        __asm__ volatile("mov $0x7000000000, %%rsp; push %%rax" : : : "memory");
        break;
    case 9: /* a GDT that is not there */
        for (int i = 0; i < 7; i++) gdt[i] = 0;
        __asm__ volatile("int $0x30");
        break;
    case 10:
        hammer();
        break;
    case 11: /* no paging in long mode */
        __asm__ volatile("mov %%cr0, %%rax; btr $31, %%rax; mov %%rax, %%cr0; 1: jmp 1b"
                         : : : "rax", "memory");
        break;
    case 12: /* page tables of rubbish */
        __asm__ volatile("mov %0, %%cr3" : : "r"(0x100000ull) : "memory");
        break;
    case 13: /* exceptions for ever, each by the handler of the one before */
        handlers[6] = NULL;
        for (int i = 0; i < 512; i += 2) {
            idt[i] = idt[2 * 6] & ~0xFFFF00000000FFFFull;
            idt[i] |= (uint64_t)&&undefined & 0xFFFF;
            idt[i] |= ((uint64_t)&&undefined >> 16 & 0xFFFF) << 48;
        }
    undefined:
        __asm__ volatile("mov $0x200000, %%rsp; ud2" : : : "memory");
        break;
    case 14: /* XSAVES and XRSTORS anywhere */
        __asm__ volatile("mov %%cr4, %%rax; or $0x40000, %%rax; mov %%rax, %%cr4\n"
                         "mov $-64, %%rdi; mov $-1, %%eax; mov $-1, %%edx\n"
                         ".byte 0x0F, 0xC7, 0x2F" : : : "rax", "rdi", "rdx", "memory");
        break;
    case 15: /* code that is written again and again */
        for (uint32_t i = 0; i < 3000; i++) {
            volatile uint8_t *code = (volatile uint8_t *)0x200000;
            code[0] = 0xEB; /* jmp over i % 7 bytes */
            code[1] = (uint8_t)(i % 7);
            for (int n = 0; n < 7; n++) code[2 + n] = 0x90;
            code[9] = 0xC3;
            ((void (*)(void))0x200000)();
        }
        check(rdmsr(IA32_LBR_FROM + 1) != 0);
        break;
    case 16:
        hammer_the_rest();
        break;
    default:
        break;
    }
}
