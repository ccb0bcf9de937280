/* Runs a program so that nothing of it outlives pylbr: `launch FD PROGRAM [ARG...]`, or
 * `launch FD,GATE PATH NAME [ARG...]`, which waits until the descriptor GATE can be read.
 *
 * Orphans of the program become children of this process.  Writes to FD the program's pid,
 * then its wait status, each 4 bytes, and ends with the program; what the program left
 * running continues, as under perf record.  When pylbr dies first, all descendants are killed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void kill_all(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    for (;;) {
        FILE *children = fopen(path, "re");
        int pid, any = 0;
        while (children && fscanf(children, "%d", &pid) == 1)
            any += kill(pid, SIGKILL) == 0;
        if (children)
            fclose(children);
        /* Reap one; its own children are ours now. */
        if (waitpid(-1, NULL, any ? 0 : WNOHANG) < 0 && errno == ECHILD)
            return;
    }
}

static void report(int fd, int value) {
    if (write(fd, &value, sizeof value) != sizeof value)
        kill_all(), _exit(1);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    char *comma = strchr(argv[1], ',');
    int fd = atoi(argv[1]), gate = comma ? atoi(comma + 1) : 0;
    pid_t parent = getppid();
    sigset_t watched, before;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    sigprocmask(SIG_BLOCK, &watched, &before);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        return 1;
    pid_t me = getpid(), child = fork();
    if (child < 0)
        return 126;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != me)
            _exit(1);
        close(fd);
        char opened;
        if (gate && (read(gate, &opened, 1) != 1 || close(gate)))
            _exit(1);
        sigprocmask(SIG_SETMASK, &before, NULL);
        execvp(argv[2], argv + (gate ? 3 : 2));
        perror(argv[2]);
        _exit(127);
    }
    if (gate)
        close(gate);
    /* The terminal's signals are the program's; this process only waits. */
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    report(fd, child);
    for (;;) {
        int number, status;
        if (sigwait(&watched, &number) == 0 && number == SIGTERM) {
            kill_all();
            return 1;
        }
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == child) {
                report(fd, status);
                return 0;
            }
    }
}
