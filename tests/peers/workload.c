/* A small program with every kind of near branch, some of them hard to predict.  It has no C
 * library, so that all its code is in functions that the tools know. */

static unsigned state = 12345;

static __attribute__((noinline)) unsigned next(void) {
    state = state * 1103515245u + 12345u;
    return state >> 16;
}

static __attribute__((noinline)) unsigned add(unsigned a, unsigned b) { return a + b; }
static __attribute__((noinline)) unsigned mix(unsigned a, unsigned b) { return (a ^ b) * 3; }
static __attribute__((noinline)) unsigned pick(unsigned a, unsigned b) { return a > b ? a : b; }

static unsigned (*volatile const table[3])(unsigned, unsigned) = {add, mix, pick};

static __attribute__((noinline)) unsigned step(unsigned op, unsigned a) {
    switch (op) { /* a jump table */
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

static __attribute__((noinline)) unsigned fib(unsigned n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static __attribute__((noinline)) unsigned run(unsigned rounds) {
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds; i++) {
        unsigned r = next();
        if (r & 1) sum = table[r % 3](sum, r);
        else sum = step(r & 7, sum);
        if (__builtin_expect((r & 0x30) != 0, 0)) { /* a hint that is wrong */
            __asm__ volatile("nop"); /* keeps it a branch */
            sum += 3;
        } else {
            sum ^= r;
        }
        if ((i & 63) == 0) sum += fib(7);
    }
    return sum;
}

static void exit_with(long code) {
    __asm__ volatile("syscall" : : "a"(60L), "D"(code) : "rcx", "r11", "memory");
    __builtin_unreachable();
}

__attribute__((noinline, used)) void start(void) { exit_with(run(3000) & 0x7F); }

__asm__(".text\n.globl _start\n.type _start, @function\n"
        "_start: xor %ebp, %ebp\n and $-16, %rsp\n call start\n .size _start, . - _start\n");
