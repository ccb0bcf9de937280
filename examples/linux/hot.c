/* A loop with a call and a branch that is hard to predict. */
static volatile unsigned sum;

__attribute__((noinline)) static int odd(unsigned x) { return x & 1; }

int main(void) {
    for (unsigned i = 0; i < 20000; i++) {
        if (odd(i * 2654435761u >> 7))
            sum += i;
        else
            sum ^= i;
    }
    return 0;
}
