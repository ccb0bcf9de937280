/* An interpreter whose hints of what is likely are all wrong: bad code layout on purpose. */
#include <stdio.h>
#include <stdlib.h>

#define WRONG(x) __builtin_expect(!!(x), 0)

static unsigned state = 12345;
static unsigned next(void) { return state = state * 1103515245u + 12345u; }

__attribute__((noinline)) static void rare(long *sum, int op) {
    *sum ^= op;
    if (*sum == 42)
        puts("rare");
}

__attribute__((noinline)) static long run(const unsigned char *code, long n) {
    long sum = 0;
    for (long i = 0; i < n; i++) {
        int op = code[i & 4095];
        if (WRONG(op < 200)) {
            if (WRONG(op & 1)) {
                sum += op;
            } else {
                if (WRONG(op < 150))
                    sum -= op * 3;
                else
                    rare(&sum, op);
            }
        } else {
            rare(&sum, op);
            if (WRONG(op > 210))
                sum += op >> 1;
            else
                sum -= 7;
        }
        if (WRONG(sum > -1000000000000L)) {
            sum ^= i;
            if (WRONG(i % 16))
                sum += 3;
            else
                rare(&sum, 1);
        } else {
            rare(&sum, 2);
        }
    }
    return sum;
}

int main(int argc, char **argv) {
    static unsigned char code[4096];
    for (int i = 0; i < 4096; i++)
        code[i] = next() >> 16;
    printf("%ld\n", run(code, argc > 1 ? atol(argv[1]) : 1000000));
    return 0;
}
