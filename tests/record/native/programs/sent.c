/* Gets SIGSEGV and SIGFPE from a child while it sorts; checks what it has sorted. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 5000 };

static volatile int came;
static int values[COUNT];

static void on_signal(int number) { came++; }
static int up(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static int down(const void *a, const void *b) { return *(const int *)b - *(const int *)a; }
static int (*volatile orders[2])(const void *, const void *) = {up, down};

static void send(int pid) {
    for (int i = 0; i < 3000; i++) {
        kill(pid, i & 1 ? SIGSEGV : SIGFPE);
        usleep(100);
    }
}

static int sorted(int k) {
    for (int i = 1; i < COUNT; i++)
        if (k & 1 ? values[i] > values[i - 1] : values[i] < values[i - 1])
            return 0;
    return 1;
}

int main(void) {
    int me = getpid(), wrong = 0;
    signal(SIGSEGV, on_signal);
    signal(SIGFPE, on_signal);
    if (!fork()) {
        send(me);
        _exit(0);
    }
    for (int k = 0; waitpid(-1, NULL, WNOHANG) == 0; k++) {
        for (int i = 0; i < COUNT; i++)
            values[i] = (i * 7919u + k) % 5003;
        qsort(values, COUNT, sizeof *values, orders[k & 1]);
        wrong += !sorted(k);
    }
    printf("%d %d\n", came > 100, wrong);
    return 0;
}
