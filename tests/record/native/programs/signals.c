/* Signals that arrive at any point: the handler uses much stack, walks it, and at times leaves
 * by siglongjmp; what it sees of the interrupted code must be the program's own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile long count, unknown, shallow, jumps;
static volatile sig_atomic_t may_jump;
static volatile char sink;
static sigjmp_buf back;

static void handler(int number, siginfo_t *info, void *context) {
    char room[40000];
    void *chain[40];
    Dl_info found;
    memset(room, count & 1, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory");
    sink = room[count & 1023];
    unknown += !dladdr((void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP], &found) ||
               !found.dli_fname;
    shallow += backtrace(chain, 40) < 10;
    count++;
    if (may_jump && count % 3 == 0) {
        may_jump = 0; /* until `back` is complete again */
        jumps++;
        siglongjmp(back, 1);
    }
    (void)number, (void)info;
}

__attribute__((noinline)) static unsigned deep(int depth, unsigned x) {
    if (depth) {
        x = deep(depth - 1, x);
        __asm__ volatile("");
        return x + 1;
    }
    for (int i = 0; i < 1000; i++) {
        x = x * 1103515245u + 12345u;
        if (x & 0x10000)
            x ^= (unsigned)i;
    }
    return x;
}

int main(void) {
    void *chain[4];
    unsigned x = 1;
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_RESTART | SA_SIGINFO};
    struct itimerval timer = {{0, 300}, {0, 300}}, off = {{0, 0}, {0, 0}};
    backtrace(chain, 4);
    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &timer, 0);
    for (int i = 0; i < 100000; i++)
        x = deep(10, x);
    for (volatile int i = 0; i < 300; i++)
        if (!sigsetjmp(back, 1)) {
            may_jump = 1;
            for (int k = 0; k < 400; k++)
                sink = (char)deep(10, x);
            may_jump = 0;
        }
    setitimer(ITIMER_REAL, &off, 0);
    printf("%u unknown %ld shallow %d jumped %d\n", x, unknown, shallow > count / 50, jumps > 20);
}
