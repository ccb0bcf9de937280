/* Faults under a rain of signals that look like ticks of the recorder: one is always waiting when
 * a window has been rolled back.  Argument: TSC cycles between two. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

enum { FAULTS = 2000, KEY = 900, TICK_CODE = -0x504c };
extern char load[], after[];
static volatile unsigned long sent, repaired;
static int over;
int probe(const void *);
__asm__(".text\n.globl probe\nprobe: xor %eax, %eax\n.globl load\nload: mov (%rdi), %eax\n"
        ".globl after\nafter: ret\n");

static void handler(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if ((char *)r[REG_RIP] != load)
        _exit(3);
    r[REG_RIP] = (long)after, repaired++;
    (void)number, (void)info;
}

static void *rain(void *cycles) {
    siginfo_t tick = {.si_signo = SIGURG, .si_code = TICK_CODE, .si_fd = KEY};
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGURG, &tick);
        sent++;
        for (unsigned long until = __rdtsc() + (unsigned long)cycles; __rdtsc() < until;)
            ;
    }
    return 0;
}

int main(int count, char **words) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    pthread_t thread;
    sigaction(SIGSEGV, &action, 0);
    pthread_create(&thread, 0, rain, (void *)atol(words[1]));
    for (int i = 0; i < FAULTS; i++) {
        for (unsigned long before = sent; sent == before;)
            ;
        probe((void *)16);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    pthread_join(thread, 0);
    printf("%lu\n", repaired);
    (void)count;
}
