/* 20,000 rounds by default: a loop, a call, a branch that is hard to predict.  A second number: rounds
 * of a loop of two instructions. */
#include <stdlib.h>
static volatile unsigned sum;
__attribute__((noinline)) static int odd(unsigned x) { return x & 1; }
__attribute__((noinline)) static void hot(unsigned rounds) {
    for (unsigned i = 0; i < rounds; i++) {
        if (odd(i * 2654435761u >> 7)) sum += i;
        else sum ^= i;
    }
}
static void counted(unsigned long rounds) {
    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(rounds) : : "cc");
}
int main(int count, char **words) {
    hot(count > 1 ? (unsigned)atoi(words[1]) : 20000);
    if (count > 2) counted(strtoul(words[2], NULL, 10));
    return 0;
}
