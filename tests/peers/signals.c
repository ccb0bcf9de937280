/* A program that a timer interrupts: every one of its functions has DWARF, none is the C library's.
 * It asks for signals, works, and ends once some have come. */
#define NR_SIGACTION 13
#define NR_SIGRETURN 15
#define NR_SETITIMER 38
#define NR_EXIT 231
#define SIGALRM 14
#define SA_RESTORER 0x04000000ul

struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

static volatile unsigned ticks, seed = 1;

static long call(long number, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

__attribute__((naked)) static void restore(void) {
    __asm__("mov %0, %%eax\n\tsyscall" : : "i"(NR_SIGRETURN));
}

__attribute__((noinline)) static void mix(unsigned n) {
    for (unsigned i = 0; i < n; i++)
        seed = seed & 1 ? seed * 3 + 1 : seed / 2 + i;
}

static void tick(int number) {
    mix((unsigned)number);
    ticks++;
}

__attribute__((noinline)) static unsigned work(unsigned n) {
    unsigned sum = 0;
    for (unsigned i = 0; i < n; i++) {
        sum += i % 3 ? seed : i;
        if (i % 7 == 0)
            mix(3);
    }
    return sum;
}

__attribute__((noinline, used)) static void run(void) {
    struct action action = {tick, SA_RESTORER, restore, 0};
    long every[4] = {0, 1000, 0, 1000};
    call(NR_SIGACTION, SIGALRM, (long)&action, 0, 8);
    call(NR_SETITIMER, 0, (long)every, 0, 0);
    while (ticks < 40)
        seed += work(200);
    call(NR_EXIT, 0, 0, 0, 0);
}

__attribute__((naked)) void _start(void) {
    __asm__("and $-16, %rsp\n\tcall run\n\thlt");
}
