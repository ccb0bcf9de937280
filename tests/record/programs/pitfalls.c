/* Instructions that look like branches to a recorder of blocks, and branches that do not. */
#include <stdio.h>

static char a[5000], b[5000];

__attribute__((noinline)) static void strings(void) {
    
#pragma GCC unroll 1
    for (int i = 0; i < 3; i++) {
        void *to = a, *from = b;
        long n = 4000;
        __asm__ volatile(".globl rep_here\nrep_here: rep movsb" : "+D"(to), "+S"(from), "+c"(n)
                         :: "memory");
        to = a, n = 900;
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(1) : "memory");
        to = a, n = 4000;
        __asm__ volatile("repne scasb" : "+D"(to), "+c"(n) : "a"(77) : "memory");
    }
}

__attribute__((noinline)) static void straight(void) {
    __asm__ volatile(".rept 3000\n nop\n .endr");
    __asm__ volatile("xor %%eax, %%eax\n cpuid" ::: "eax", "ebx", "ecx", "edx");
}

__attribute__((noinline)) static void next_instruction(void) {
    __asm__ volatile(
        "xor %%eax, %%eax\n"
        ".globl jmp_next\njmp_next: .byte 0xeb, 0\n"
        ".globl call_next\ncall_next: call 1f\n1: pop %%rdx\n"
        "lea 2f(%%rip), %%rdx\n push %%rdx\n"
        ".globl ret_next\nret_next: ret\n2:\n"
        "lea 3f(%%rip), %%rdx\n"
        ".globl jmp_rdx\njmp_rdx: jmp *%%rdx\n3:\n"
        "xor %%eax, %%eax\n"
        ".globl jz_next\njz_next: .byte 0x74, 0\n"
        "mov $5, %%ecx\n"
        ".globl loop_self\nloop_self: loop loop_self\n"
        "xor %%ecx, %%ecx\n jrcxz 4f\n ud2\n4:\n" ::: "rax", "rcx", "rdx", "memory");
}

int main(void) {
    strings();
    straight();
    next_instruction();
    return puts("done") < 0;
}
