/* Code that writes an operand of its own next instruction, and code that is replaced between
 * two calls, up to the last byte of a page that is followed by nothing. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

typedef unsigned (*function)(unsigned);

int main(void) {
    uint8_t *p = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* mov %edi, 1(%rip): the operand of the next; mov $0, %eax; add $1, %eax; ret */
    static const uint8_t ahead[] = {0x89, 0x3d, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0x83, 0xc0, 1, 0xc3};
    /* mov %edi, %eax; mov $64, %ecx; 1: add %ecx, %eax; dec %ecx; jnz 1b; ret */
    static const uint8_t loop[] = {0x89, 0xf8, 0xb9, 64, 0, 0, 0, 1, 0xc8, 0xff, 0xc9, 0x75, 0xfa, 0xc3};
    unsigned sum = 0, wrong = 0;
    memcpy(p, ahead, sizeof ahead);
    for (unsigned i = 0; i < 1000000; i++)
        wrong += ((function)p)(i) != i + 1;
    for (int k = 0; k < 20; k++) {
        p = mmap(p, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        uint8_t *start = p + 4096 - 32;
        memset(start, 0x90, 64);
        memcpy(start + 48, loop, sizeof loop);
        for (unsigned i = 0; i < 20000; i++)
            sum += ((function)start)(i);
        munmap(p + 4096, 4096);
        memcpy(p + 4096 - sizeof loop, loop, sizeof loop);
        for (unsigned i = 0; i < 20000; i++)
            sum += ((function)start)(i);
    }
    printf("%u %u\n", sum, wrong);
}
