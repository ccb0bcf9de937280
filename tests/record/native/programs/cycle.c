/* The same few thousand branches again and again, without a C library: loops, calls through a
 * table, recursion, a switch.  argv[1]: how many times. */
#define NOINLINE __attribute__((noinline))

static volatile unsigned sink;

static long call(long number, long a) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a) : "rcx", "r11", "memory");
    return result;
}

NOINLINE static unsigned twice(unsigned x) { return x * 2 + 1; }
NOINLINE static unsigned odd(unsigned x) { return x & 1 ? x * 3 + 1 : x / 2; }
NOINLINE static unsigned turn(unsigned x) { return x << 5 | x >> 27; }
static unsigned (*volatile table[3])(unsigned) = {twice, odd, turn};

NOINLINE static unsigned tree(unsigned depth, unsigned x) {
    if (!depth)
        return x ^ 0x55;
    return tree(depth - 1, x + 1) + tree(depth - 1, x * 3);
}

NOINLINE static unsigned pick(unsigned i, unsigned x) {
    switch (i % 7) {
    case 0: return x + 3;
    case 1: return x ^ 0x1234;
    case 2: return turn(x);
    case 3: return x - i;
    case 4: return odd(x);
    default: return x * 5;
    }
}

static void once(void) {
    unsigned x = 7;
    for (unsigned i = 0; i < 150; i++) {
        x = table[(x >> 3) % 3](x + i);
        x = pick(i, x);
        if (x % 5 == 0)
            x += tree(i % 5, x);
    }
    sink = x;
}

__attribute__((used)) void start(long *stack) {
    long n = 0;
    for (const char *p = (const char *)stack[2]; *p; p++)
        n = n * 10 + *p - '0';
    for (long i = 0; i < n; i++)
        once();
    call(231, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall start\n");
