/* Signals from outside amid tight loops, faults in the middle of blocks, a handler that is
 * also called, a trap, a handler that jumps away.  Prints how many of each came. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile long alarms, faults, traps, users;
static sigjmp_buf away;
static char *page;

static void on_alarm(int n) { alarms++; }
static void on_user(int n) { users++; }
static void on_trap(int n) { traps++; }
static void on_fault(int n, siginfo_t *info, void *context) {
    if (++faults % 2)
        mprotect(page, 4096, PROT_READ | PROT_WRITE);
    else
        siglongjmp(away, 1);
}

static void handle(int n, void *f, int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = (void (*)(int))f;
    action.sa_flags = flags;
    sigaction(n, &action, NULL);
}

int main(void) {
    struct itimerval tick = {{0, 1000}, {0, 1000}};
    volatile long sum = 0;
    handle(SIGALRM, on_alarm, SA_RESTART);
    handle(SIGUSR1, on_user, 0);
    handle(SIGTRAP, on_trap, 0);
    handle(SIGSEGV, on_fault, SA_SIGINFO | SA_NODEFER);
    setitimer(ITIMER_REAL, &tick, NULL);
    while (alarms < 20)
        for (int i = 0; i < 1000; i++)
            sum += i % 7 ? i : -i;
    memset(&tick, 0, sizeof tick);
    setitimer(ITIMER_REAL, &tick, NULL);
    on_alarm(0);
    page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 20; i++) {
        mprotect(page, 4096, PROT_NONE);
        if (!sigsetjmp(away, 1)) {
            sum += i;
            page[i] = 1; /* repeated after the first fault of each pair */
            sum ^= page[i];
        }
    }
    for (int i = 0; i < 5; i++) {
        __asm__ volatile("int3");
        raise(SIGUSR1);
    }
    printf("%ld %ld %ld %ld\n", alarms - 1, faults, traps, users);
    return 0;
}
