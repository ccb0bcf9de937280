/* Threads that come and go, a fork, a vfork and a posix_spawn, each doing some work. */
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static unsigned work(unsigned x, long n) {
    for (long i = 0; i < n; i++) {
        x = x * 1103515245u + 12345u;
        if (x & 0x10000)
            x ^= (unsigned)i;
    }
    return x;
}

static void *thread(void *seed) { return (void *)(long)work((unsigned)(long)seed, 40000000); }

static int result(pid_t pid) {
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int main(int argc, char **argv) {
    if (argc > 1)
        return (int)(work((unsigned)atoi(argv[1]), 60000000) & 127);
    unsigned sum = 0;
    for (int round = 0; round < 3; round++) {
        pthread_t threads[4];
        for (long i = 0; i < 4; i++)
            pthread_create(&threads[i], 0, thread, (void *)i);
        for (int i = 0; i < 4; i++) {
            void *value;
            pthread_join(threads[i], &value);
            sum += (unsigned)(long)value;
        }
    }
    pid_t forked = fork();
    if (!forked)
        _exit((int)(work(7, 60000000) & 127));
    printf("%u %d", sum, result(forked));
    char *args[] = {argv[0], "9", 0};
    pid_t child = vfork();
    if (!child)
        execv(argv[0], args), _exit(99);
    printf(" %d", result(child));
    for (int i = 0; i < 20; i++) {
        pid_t spawned;
        char *list[] = {"/bin/true", 0};
        if (posix_spawn(&spawned, list[0], 0, 0, list, environ) || result(spawned))
            return 98;
    }
    pid_t last;
    posix_spawn(&last, argv[0], 0, 0, args, environ);
    printf(" %d\n", result(last));
}
