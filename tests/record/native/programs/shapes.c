/* Calls shapes() as often as the argument says, and prints what it computed. */
#include <asm/prctl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

void shapes(uint64_t *sum);
extern uint64_t gs_area[];

int main(int argc, char **argv) {
    uint64_t sum = 1, all = 0;
    syscall(SYS_arch_prctl, ARCH_SET_GS, gs_area);
    for (long n = argc > 1 ? atol(argv[1]) : 1; n > 0; n--) {
        sum = 1; /* the same each time, so that the branches are */
        shapes(&sum);
        all = all * 31 + sum;
    }
    printf("%llx %llx\n", (unsigned long long)sum, (unsigned long long)all);
}
