/* A small program with every kind of near branch, without a C library, for AArch64 and RISC-V. */

static unsigned state = 12345;

static __attribute__((noinline)) unsigned next(void) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static __attribute__((noinline)) unsigned add(unsigned a, unsigned b) { return a + b; }
static __attribute__((noinline)) unsigned mix(unsigned a, unsigned b) { return (a ^ b) + 3; }
static __attribute__((noinline)) unsigned pick(unsigned a, unsigned b) { return a > b ? a : b; }

static unsigned (*volatile const table[4])(unsigned, unsigned) = {add, mix, pick, mix};

static __attribute__((noinline)) unsigned step(unsigned op, unsigned a) {
    switch (op) { /* a jump table */
    case 0: return a + 1;
    case 1: return (a << 2) + a;
    case 2: return add(a, 0x5555) ^ 3;
    case 3: return a >> 3;
    case 4: return mix(a, 77);
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
        if (r & 1)
            sum = table[r >> 1 & 3](sum, r);
        else
            sum = step(r & 7, sum);
        if ((i & 63) == 0)
            sum += fib(7);
    }
    return sum;
}

#if defined(__aarch64__)
static void exit_with(long code) {
    register long number __asm__("x8") = 93, value __asm__("x0") = code;
    __asm__ volatile("svc #0" : : "r"(number), "r"(value) : "memory");
    __builtin_unreachable();
}
#define ENTER "bl start\n"
#else
static void exit_with(long code) {
    register long number __asm__("a7") = 93, value __asm__("a0") = code;
    __asm__ volatile("ecall" : : "r"(number), "r"(value) : "memory");
    __builtin_unreachable();
}
#define ENTER ".option push\n.option norelax\nla gp, __global_pointer$\n.option pop\ncall start\n"
#endif

__attribute__((noinline, used)) void start(void) { exit_with(run(ROUNDS) & 0x7F); }

__asm__(".text\n.globl _start\n.type _start, %function\n_start:\n" ENTER
        ".size _start, . - _start\n");
