/* Signals at any instruction, a fault that its handler mends, a thread and a child. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int ticks, faults;
static volatile char *volatile page;

static void on_tick(int number) { ticks++; }

static void on_fault(int number, siginfo_t *info, void *context) {
    faults++;
    mprotect((void *)page, 4096, PROT_READ | PROT_WRITE);
}

static void *work(void *sum) {
    for (unsigned i = 0; i < 20000; i++)
        if (i & 3)
            *(volatile unsigned *)sum += i;
    return sum;
}

int main(void) {
    struct sigaction tick = {.sa_handler = on_tick}, fault = {.sa_sigaction = on_fault};
    struct itimerval every = {{0, 1000}, {0, 1000}};
    unsigned one = 0, other = 0;
    pthread_t thread;
    fault.sa_flags = SA_SIGINFO;
    sigaction(SIGVTALRM, &tick, NULL);
    sigaction(SIGSEGV, &fault, NULL);
    page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *page = 1;
    setitimer(ITIMER_VIRTUAL, &every, NULL);
    pthread_create(&thread, NULL, work, &other);
    for (int i = 0; i < 60 || (ticks < 30 && i < 20000); i++)
        work(&one);
    pthread_join(thread, NULL);
    if (!fork()) {
        work(&one);
        _exit(0);
    }
    wait(NULL);
    raise(SIGVTALRM);
    printf("%d %d\n", ticks > 3, faults);
    return 0;
}
