/* A program with a GS base of its own, through which it reads and writes all the time. */
#include <asm/prctl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long table[64];

int main(void) {
    unsigned long base = 0, x = 1;
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, table))
        return 1;
    for (long i = 0; i < 30000000; i++) {
        unsigned long at = x % 64 * 8, value;
        __asm__ volatile("add %1, %%gs:(%2)\nmov %%gs:(%2), %0" : "=r"(value) : "r"(i), "r"(at));
        x = x * 6364136223846793005u + value;
        if (x >> 63)
            x ^= value;
    }
    syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
    printf("%lx %d\n", x, base == (unsigned long)table);
    return 0;
}
