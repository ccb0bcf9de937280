/* A program that owns its signals: resets all, handles SIGTRAP, SIGURG and int3, blocks all. */
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

static volatile long traps, urgent;
static unsigned x = 1;

static void trapped(int number) { (void)number, traps++; }
static void urged(int number) { (void)number, urgent++; }

static void work(long n) {
    for (long i = 0; i < n; i++) {
        x = x * 1103515245u + 12345u;
        if (x & 0x10000)
            x ^= (unsigned)i;
    }
}

int main(void) {
    sigset_t all;
    sigfillset(&all);
    for (int i = 1; i < 32; i++)
        signal(i, SIG_DFL);
    work(30000000);
    signal(SIGTRAP, trapped);
    for (int i = 0; i < 200; i++) {
        work(50000);
        if (i & 1)
            raise(SIGTRAP);
        else
            __asm__ volatile("int3");
    }
    printf("%d", signal(SIGURG, urged) == SIG_DFL);
    for (int i = 0; i < 200; i++)
        work(50000), kill(getpid(), SIGURG);
    printf(" %d", signal(SIGURG, SIG_IGN) == urged);
    work(10000000);
    printf(" %d\n", signal(SIGURG, SIG_DFL) == SIG_IGN);
    for (int i = 0; i < 50; i++) {
        sigprocmask(SIG_BLOCK, &all, 0);
        work(200000);
        sigprocmask(SIG_UNBLOCK, &all, 0);
    }
    printf("%u %ld %ld\n", x, traps, urgent);
}
