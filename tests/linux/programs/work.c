/* 20,000 rounds by default: a loop, a call, a branch that is hard to predict. */
#include <stdlib.h>
static volatile unsigned sum;
__attribute__((noinline)) static int odd(unsigned x) { return x & 1; }
__attribute__((noinline)) static void hot(unsigned rounds) {
    for (unsigned i = 0; i < rounds; i++) {
        if (odd(i * 2654435761u >> 7)) sum += i;
        else sum ^= i;
    }
}
int main(int count, char **words) {
    hot(count > 1 ? (unsigned)atoi(words[1]) : 20000);
    return 0;
}
