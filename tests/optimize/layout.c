/* Every step jumps over code that never runs: what a layout by profile mends.
   Compile with -O1 -fno-reorder-blocks. */
#include <stdio.h>
#include <stdlib.h>

static unsigned errors;
#define CHECK(bit)                                       \
    if (value >> bit & 1)                                \
        goto fine##bit;                                  \
    errors += bit;                                       \
    __asm__ volatile("" : "+r"(errors), "+r"(value));    \
    fine##bit : __asm__ volatile("" : "+r"(value));

static __attribute__((noinline)) unsigned step(unsigned value) {
    CHECK(0)
    CHECK(1)
    CHECK(2)
    CHECK(3)
    CHECK(4)
    CHECK(5)
    CHECK(6)
    CHECK(7)
    return value;
}

int main(int count, char **words) {
    unsigned rounds = count > 1 ? atoi(words[1]) : 1000, value = 0;
    for (unsigned i = 0; i < rounds; i++)
        value += step(i | 0xff);
    printf("%u %u\n", value, errors);
    return count > 2 ? atoi(words[2]) : 0;
}
