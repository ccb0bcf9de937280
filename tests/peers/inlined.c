/* A program whose hot code is inlined, several levels deep, and called indirectly nowhere. */

static unsigned state = 12345;

static inline unsigned next(void) {
    state = state * 1103515245u + 12345u;
    return state >> 16;
}

static inline unsigned low(unsigned a) {
    if (a & 1) return a * 3;
    return a + next();
}

static inline unsigned twice(unsigned a) {
    unsigned sum = low(a);
    if (sum % 3 == 0) sum += low(sum);
    return sum;
}

static __attribute__((noinline)) unsigned fold(const unsigned *values, unsigned count) {
    unsigned sum = 0;
    for (unsigned i = 0; i < count; i++) sum += values[i] ^ (sum << 3);
    return sum;
}

static __attribute__((noinline)) unsigned leaf(unsigned a) {
    __asm__ volatile("" : "+r"(a));
    return a > 7 ? a - 7 : a;
}

static __attribute__((noinline)) unsigned run(unsigned rounds) {
    static unsigned values[64];
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds; i++) {
        sum += twice(i) + (i % 5 ? twice(sum) : leaf(sum)); values[i & 63] = sum;
        switch (sum & 7) {
        case 0: sum += leaf(i); break;
        case 1: sum ^= low(i); break;
        case 2: sum -= 3; break;
        case 5: sum = sum * 7 + leaf(1); break;
        default: sum++;
        }
        if ((i & 31) == 0) sum ^= fold(values, 64);
    }
    return sum;
}

static void exit_with(long code) {
    __asm__ volatile("syscall" : : "a"(60L), "D"(code) : "rcx", "r11", "memory");
    __builtin_unreachable();
}

__attribute__((noinline, used)) void start(void) { exit_with(run(900) & 0x7F); }

__asm__(".text\n.globl _start\n.type _start, @function\n"
        "_start: xor %ebp, %ebp\n and $-16, %rsp\n call start\n .size _start, . - _start\n");
