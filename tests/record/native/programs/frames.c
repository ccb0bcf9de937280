/* System calls whose pointer is bad: clone3, and rt_sigreturn without a frame, with one that cannot
 * be written, with bad vector registers.  "die": without a handler. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

extern char made[];
void bare(long rsp, long number), go_back(void *rsp), spot(void);
__asm__(".text\nbare: mov %rdi, %rsp; mov %rsi, %rax; syscall; .globl made\nmade: ud2\n"
        "go_back: mov %rdi, %rsp; mov $15, %eax; syscall; ud2\n"
        "spot: ud2; ret\n");

static sigjmp_buf back;
static volatile int how, faults, illegal;
static long results[8];

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    faults++;
    if (how == 0)
        results[0] = (char *)r[REG_RIP] == made, results[1] = r[REG_RAX], results[2] = r[REG_RSP];
    else
        results[3] = (char *)r[REG_RIP] == (char *)spot + 2, results[4] = info->si_code;
    siglongjmp(back, 1);
    (void)number;
}

static void on_illegal(int number, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    illegal++;
    uc->uc_mcontext.gregs[REG_RIP] += 2;
    if (how == 2)
        uc->uc_mcontext.fpregs = (void *)16;
    if (how != 1)
        return;
    /* The whole frame, from its return address on, in memory that cannot be written. */
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page + 3800, (char *)uc - 8, 1024);
    mprotect(page, 8192, PROT_READ);
    go_back(page + 3808);
    (void)number, (void)info;
}

static long clone3(void *arguments, long size) {
    errno = 0;
    return syscall(SYS_clone3, arguments, size) == -1 ? errno : 0;
}

int main(int count, char **words) {
    static char stack[65536];
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction undefined = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    printf("%ld %ld %ld\n", clone3((void *)16, 88), clone3(0, 8), clone3((void *)-4096l, 88));
    fflush(stdout);
    if (count > 1)
        bare(strcmp(words[1], "die") ? 16 : 4096, 15);
    sigaltstack(&alternate, 0);
    sigaction(SIGSEGV, &fault, 0);
    sigaction(SIGILL, &undefined, 0);
    printf("%ld %ld\n", clone3((void *)16, 88), clone3(0, 8));
    if (!sigsetjmp(back, 1))
        bare(4096, 15);
    how = 1;
    spot();
    how = 2;
    if (!sigsetjmp(back, 1))
        spot();
    how = 3;
    spot();
    printf("%ld %ld %ld, %ld %ld, %d faults, %d illegal\n", results[0], results[1], results[2],
           results[3], results[4], faults, illegal);
}
