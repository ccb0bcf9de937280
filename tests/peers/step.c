/* Runs a program one instruction at a time on the real processor and writes every RIP.
 *
 *     step OUT PROGRAM [ARG...]        (8 bytes each, little endian; at most MOST of them)
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 4000000 };

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    FILE *out = fopen(argv[1], "wb");
    if (!out) return 2;
    pid_t child = fork();
    if (child == 0) {
        personality(ADDR_NO_RANDOMIZE);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[2], argv + 2);
        _exit(127);
    }
    int status;
    for (long i = 0; i < MOST; i++) {
        if (waitpid(child, &status, 0) < 0) return 2;
        if (WIFEXITED(status)) return fclose(out) ? 2 : 0;
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) return 2;
        struct user_regs_struct regs;
        if (ptrace(PTRACE_GETREGS, child, 0, &regs)) return 2;
        unsigned long long rip = regs.rip;
        if (fwrite(&rip, 8, 1, out) != 1) return 2;
        if (ptrace(PTRACE_SINGLESTEP, child, 0, 0)) return 2;
    }
    kill(child, SIGKILL);
    return 3;
}
