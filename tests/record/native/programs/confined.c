/* A program that leaves the recorder no room: all descriptors closed and counted, then one of
 * little address space, W^X for ever, and a filter that kills at any call but a few. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALLOW(n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, n, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static unsigned work(long n) {
    unsigned x = 1;
    for (long i = 0; i < n; i++) {
        x = x * 1103515245u + 12345u;
        if (x & 0x10000)
            x ^= (unsigned)i;
    }
    return x;
}

int main(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), ALLOW(SYS_write),
        ALLOW(SYS_exit_group), ALLOW(SYS_rt_sigreturn),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    int first = open("/dev/null", O_RDONLY), closed = 0;
    for (int i = 3; i < 1024; i++)
        closed += close(i) == 0;
    unsigned a = work(20000000);
    setrlimit(RLIMIT_AS, &(struct rlimit){1 << 20, 1 << 20});
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, 3});
    prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    unsigned b = work(20000000);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
    unsigned c = work(40000000);
    char text[64];
    int n = snprintf(text, sizeof text, "%d %d %u %u %u\n", first, closed, a, b, c);
    return write(1, text, (size_t)n) != n;
}
