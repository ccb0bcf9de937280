/* A system call after every few dozen to few thousand branches. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    unsigned x = 1, sum = 0;
    for (int i = 0; i < 60000; i++) {
        sum += (unsigned)getppid() > 0;
        for (unsigned n = x % 97 < 60 ? 30 : 3000; n--; x = x * 1103515245 + 12345)
            if (x & 0x10000)
                sum += x >> 20;
    }
    printf("%u\n", sum);
    return 0;
}
