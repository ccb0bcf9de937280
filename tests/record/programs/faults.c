/* Ends badly, in the way that its argument names. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long sum;

__attribute__((noinline)) static void work(long n) {
    for (long i = 0; i < n; i++)
        sum += i % 3 ? i : -i;
}

static void children(int n) {
    int left = 0;
    for (int i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            work(300);
            _exit(0);
        }
        left += pid > 0;
        if (left >= 200)
            left -= wait(NULL) > 0;
    }
    while (wait(NULL) > 0)
        ;
}

static void stubborn(void) {
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            setsid();
            break;
        }
    for (;;)
        work(1000);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    if (!strcmp(how, "crash")) {
        work(20000);
        *(volatile int *)8 = 1;
    } else if (!strcmp(how, "kill")) {
        work(20000);
        kill(getpid(), SIGKILL);
    } else if (!strcmp(how, "abort")) {
        work(20000);
        abort();
    } else if (!strcmp(how, "children")) {
        children(1000);
    } else if (!strcmp(how, "close")) {
        syscall(SYS_close_range, 0u, ~0u, 0u);
        if (fork() == 0) {
            execl("/bin/true", "true", NULL);
            _exit(1);
        }
        int status = 1;
        wait(&status);
        work(20000);
        return status ? 1 : 7;
    } else if (!strcmp(how, "stubborn")) {
        stubborn();
    } else if (!strcmp(how, "wait")) {
        write(1, "ready\n", 6);
        pause();
    } else if (!strcmp(how, "work")) {
        work(atol(argv[2]));
    } else if (!strcmp(how, "exec")) {
        execv(argv[2], argv + 2);
        return 3;
    }
    return 0;
}
