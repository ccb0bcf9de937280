/* One branch of each kind, without a C library and without a look at the processor: every run
 * takes the same branches, on the machine and under QEMU.  Prints a sum. */
typedef unsigned long u64;

struct action { u64 handler, flags, restorer, mask; };

static u64 sum, faults, sent, nested;
static u64 page[1024] __attribute__((aligned(4096)));

static long call(long n, long a, long b, long c, long d) {
    long r;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return r;
}

__asm__("restorer: mov $15, %eax; syscall\n"
        "pops: mov %rdi, %rax; ret $8\n" /* its caller has pushed a word */
        "counts: mov %rdi, %rcx; xor %eax, %eax; 1: add $3, %rax; loop 1b; jrcxz 2f; ud2; 2: ret\n"
        "repeats: mov %rdx, %rcx; rep movsb; ret\n"
        "nothing: call 1f; 1: pop %rax; ret\n"
        "flags: cmp %rsi, %rdi; push 1f(%rip); jmp 2f; 2: pop %rax; jb 3f; mov $2, %eax; ret; 3: mov $1, %eax; ret; 1: .quad 7\n"
        "zone: mov %rdi, -8(%rsp); mov $0, %ecx; 1: add %rcx, -8(%rsp); inc %rcx; cmp $50, %rcx; jne 1b; mov -8(%rsp), %rax; ret\n"
        "trap: int3; ret\n");
u64 counts(u64), repeats(void *, const void *, u64), nothing(void), flags(u64, u64), zone(u64);
void restorer(void), trap(void);

static u64 popped(u64 n) {
    u64 r;
    __asm__ volatile("sub $128, %%rsp; push $5; call pops; add $128, %%rsp" : "=a"(r) : "D"(n) : "memory");
    return r;
}

static void handle(int n, void *f, u64 flags) {
    struct action a = {(u64)f, 0x04000000 | flags, (u64)restorer, 0};
    call(13, n, (long)&a, 0, 8);
}

static void on_fault(int n, void *info, u64 *context) {
    faults++;
    if (n == 11)
        call(10, (long)page, 4096, 3, 0);
    else if (n == 4)
        context[5 + 16] += 2; /* RIP: over UD2 */
    else if (n == 8)
        context[5 + 11] = 1; /* RBX: the divisor */
}

static void on_sent(int n) {
    sent += (u64)n;
    if (n == 10)
        call(200, call(186, 0, 0, 0, 0), 12, 0, 0); /* tkill: another one, now */
    nested += counts(3);
}

static u64 fib(u64 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
static u64 twice(u64 n) { return n * 2; }
static u64 (*volatile functions[4])(u64) = {fib, twice, popped, zone};

__attribute__((noinline)) static u64 chosen(u64 n) {
    switch (n & 7) {
    case 0: return 3;
    case 1: return n * 7;
    case 2: return fib(3);
    case 3: return 11;
    case 4: return n + 13;
    case 5: return 17 - n;
    case 6: return n ^ 19;
    default: return 23;
    }
}

static void all(void) {
    static char from[300] = "abc", to[300];
    for (u64 i = 0; i < 60; i++)
        sum = sum * 31 + functions[i & 3](i & 15) + chosen(i) + counts(i + 1) + flags(i, 30);
    sum += repeats(to, from, 300) + (nothing() != 0);
    handle(11, on_fault, 4);
    handle(4, on_fault, 4);
    handle(8, on_fault, 4 | 0x40000000);
    handle(5, on_sent, 0);
    handle(10, on_sent, 0);
    handle(12, on_sent, 0x10000000);
    for (int i = 0; i < 3; i++) {
        u64 quotient;
        call(10, (long)page, 4096, 1, 0);
        page[i] = sum;
        __asm__ volatile("mov $9, %%eax; xor %%edx, %%edx; xor %%ebx, %%ebx; div %%rbx" : "=a"(quotient) : : "rbx", "rdx");
        sum += page[i] + quotient;
        __asm__ volatile("ud2");
        call(200, call(186, 0, 0, 0, 0), 10, 0, 0);
        trap();
    }
}

static void print(u64 n) {
    char text[20];
    int at = 20;
    text[--at] = '\n';
    do
        text[--at] = (char)('0' + n % 10);
    while (n /= 10);
    call(1, 1, (long)(text + at), 20 - at, 0);
}

__attribute__((used)) void run(void) {
    all();
    print(sum);
    print(faults * 1000000 + sent * 1000 + nested);
    call(231, 7, 0, 0, 0);
}

__asm__(".globl _start; _start: xor %ebp, %ebp; and $-16, %rsp; call run");
