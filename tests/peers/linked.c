/* The work of workload.c in a program with a C library, for every linker. */
#include <stdio.h>

/* More than a page: perf2bolt 19 takes code in the first page of a file for its headers. */
const char rodata[2 * 4096] = {1};

static unsigned state = 12345;

__attribute__((noinline)) unsigned next(void) {
    state = state * 1103515245u + 12345u;
    return state >> 16;
}

__attribute__((noinline)) unsigned add(unsigned a, unsigned b) { return a + b; }
__attribute__((noinline)) unsigned mix(unsigned a, unsigned b) { return (a ^ b) * 3; }
__attribute__((noinline)) unsigned pick(unsigned a, unsigned b) { return a > b ? a : b; }

static unsigned (*volatile const table[3])(unsigned, unsigned) = {add, mix, pick};

__attribute__((noinline)) unsigned step(unsigned op, unsigned a) {
    switch (op) {
    case 0: return a + 1;
    case 1: return a * 5;
    case 2: return a ^ 0x5555;
    case 3: return a >> 3;
    case 4: return a - 77;
    case 5: return ~a;
    case 6: return a | 9;
    default: return a << 1;
    }
}

__attribute__((noinline)) unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

__attribute__((noinline)) unsigned loop(unsigned rounds) {
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds; i++) {
        unsigned r = next();
        if (r & 1)
            sum = table[r % 3](sum, r);
        else
            sum = step(r & 7, sum);
        if ((i & 63) == 0)
            sum += fib(7);
    }
    return sum;
}

int main(int argc, char **argv) {
    printf("%u\n", loop(60000) + rodata[argc]);
    return 0;
}
