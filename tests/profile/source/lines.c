/* Loops with a known way through them, for the tests of pylbr report --by code. */
#include <stdint.h>

__attribute__((noinline)) uint32_t collatz(uint32_t n)
{
    uint32_t steps = 0;
    while (n != 1) {
        if (n % 2)
            n = 3 * n + 1;
        else
            n /= 2;
        steps++;
    }
    return steps;
}

int main(void)
{
    uint32_t sum = 0;
    for (uint32_t i = 1; i < 3000; i++)
        sum += collatz(i);
    return sum == 0;
}
