/* Ten calls deep for as many rounds as the first word says: call stacks that live across task switches. */
#include <stdlib.h>

static volatile unsigned state = 1;

__attribute__((noinline)) static unsigned next(unsigned n) {
    state = state * 1103515245u + 12345u;
    return state >> (n & 7);
}

__attribute__((noinline)) static unsigned busy(unsigned rounds) {
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds; i++)
        sum += next(i);
    return sum + 1;
}

__attribute__((noinline)) static unsigned down(unsigned depth, unsigned rounds) {
    return (depth ? down(depth - 1, rounds) : busy(rounds)) + depth;
}

int main(int count, char **words) {
    unsigned sum = 0;
    for (int i = 0; i < 4; i++)
        sum += down(9, count > 1 ? (unsigned)atoi(words[1]) : 20000);
    return sum == 1;
}
