/* Faults that handlers repair: by mprotect, by skipping an instruction that they know by its
 * address, once only (SA_RESETHAND), and by reading a code address that does not exist. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGES = 32 };
extern char load[], after[];
static char *pages;
static long repaired, skipped, once, foreign, jumped;
static sigjmp_buf back;
int probe(const void *);
__asm__(".text\n.globl probe\nprobe: xor %eax, %eax\nmov $20, %ecx\n1: dec %ecx\njnz 1b\n"
        ".globl load\nload: mov (%rdi), %eax\n.globl after\nafter: ret\n");

static void handler(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    char *at = info->si_addr;
    if (at >= pages && at < pages + PAGES * 4096L) {
        mprotect((void *)((long)at & ~4095L), 4096, PROT_READ | PROT_WRITE), repaired++;
    } else if ((char *)r[REG_RIP] == load) {
        r[REG_RIP] = (long)after, r[REG_RAX] = -1, skipped++;
    } else if (r[REG_RIP] == 0x30) {
        jumped++;
        siglongjmp(back, 1);
    } else {
        foreign++;
        _exit(3);
    }
    (void)number;
}

static void first(int number) { once++; signal(number, SIG_DFL); }

int main(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK}, was;
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&stack, 0);
    sigaction(SIGSEGV, &action, 0);
    pages = mmap(0, PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (int k = 0; k < 100; k++) {
        mprotect(pages, PAGES * 4096, PROT_NONE);
        for (int i = 0; i < PAGES; i++)
            sum += ++pages[i * 4096];
    }
    for (int i = 0; i < 60000; i++)
        sum += probe((void *)16);
    for (volatile int i = 0; i < 20000; i++)
        if (!sigsetjmp(back, 1))
            ((void (*)(void))0x30)();
    for (int i = 0; i < 2000; i++) {
        action = (struct sigaction){.sa_handler = first, .sa_flags = SA_RESETHAND | SA_NODEFER};
        sigaction(SIGFPE, &action, 0);
        sigaction(SIGFPE, 0, &was);
        foreign += was.sa_handler != first || !(was.sa_flags & SA_RESETHAND);
        raise(SIGFPE);
    }
    sigaction(SIGSEGV, 0, &was);
    printf("%ld %ld %ld %ld %ld %ld %d\n", sum, repaired, skipped, jumped, once, foreign,
           was.sa_sigaction == handler && was.sa_flags == (SA_SIGINFO | SA_ONSTACK));
}
