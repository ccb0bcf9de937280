/* Threads that compute while timers send signals and memory, divisions and traps fault at random
 * points.  What it prints depends on none of the times at which that happens. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define THREADS 4

static volatile char *forbidden;
static long rounds = 3000000; /* or as the first argument says */
static long first_seed = 1;   /* or as the second says */
static __thread sigjmp_buf back;
static __thread uint64_t in_handlers;

static uint64_t next(uint64_t *x) {
    *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
    return *x;
}

/* Uses vector and x87 registers, and branches, as handlers do. */
static void timed(int number, siginfo_t *info, void *context) {
    double d = (double)(in_handlers % 97) + 0.5;
    char text[128];
    memset(text, (int)in_handlers, sizeof text);
    for (int i = 0; i < (int)(in_handlers & 15); i++)
        d = d * 1.5 + text[i];
    in_handlers += 1 + (d != d);
}

/* A fault of memory: forward to the next instruction, which is 3 bytes on; of arithmetic: back. */
static void faulted(int number, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    if (number == SIGSEGV && info->si_addr == (void *)forbidden) {
        uc->uc_mcontext.gregs[REG_RIP] += 3;
        uc->uc_mcontext.gregs[REG_RAX] = 7;
        return;
    }
    siglongjmp(back, number);
}

static uint64_t load(void) {
    uint64_t value;
    __asm__ volatile("movzbl (%1), %%eax\nmov %%rax, %0" : "=r"(value) : "d"(forbidden) : "rax");
    return value;
}

static uint64_t step(uint64_t x, uint64_t kind, volatile int *zero) {
    switch (kind) {
    case 0: return load();
    case 1:
        if (sigsetjmp(back, 1) == 0)
            return (uint64_t)((int)x / *zero);
        return x + 11;
    case 2:
        if (sigsetjmp(back, 1) == 0)
            __asm__ volatile("ud2");
        return x + 13;
    default: return x;
    }
}

static void *work(void *seed) {
    uint64_t x = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1, sum = 0;
    static volatile int zero = 0;
    double d = 1.0;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    struct itimerspec often = {{0, 230000 + (long)(x % 70000)}, {0, 100000}};
    timer_t timer;
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &often, 0))
        return (void *)1;
    for (long i = 0; i < rounds; i++) {
        uint64_t r = next(&x);
        if (r % 5 < 2)
            sum += r >> 33;
        else if (r & 64)
            sum ^= r, d = d * 1.0000001 + (double)(r & 7);
        if (r % 4096 < 3)
            sum += step(sum, r % 4096, &zero);
    }
    timer_delete(timer);
    return (void *)(sum ^ (uint64_t)(d * 1e-3));
}

int main(int count, char **arguments) {
    if (count > 1)
        rounds = atol(arguments[1]);
    if (count > 2)
        first_seed = atol(arguments[2]);
    struct sigaction action = {.sa_sigaction = timed, .sa_flags = SA_SIGINFO | SA_RESTART};
    pthread_t threads[THREADS];
    uint64_t total = 0;
    forbidden = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGRTMIN, &action, 0);
    action.sa_sigaction = faulted;
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGFPE, &action, 0);
    sigaction(SIGILL, &action, 0);
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], 0, work, (void *)(first_seed + i));
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        total = total * 31 + (uint64_t)result;
    }
    printf("%llx\n", (unsigned long long)total);
    return 0;
}
