/* A process with threads forks; its children have threads of their own. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int started, stop;

static void *waiting(void *nothing) {
    __sync_fetch_and_add(&started, 1);
    while (!stop)
        usleep(1000);
    return nothing;
}

__attribute__((noinline)) static long work(long n) {
    long sum = 0;
    for (volatile long i = 0; i < n; i++)
        sum += i;
    return sum;
}

static void *working(void *n) { return (void *)work((long)n); }

int main(int argc, char **argv) {
    pthread_t threads[3];
    int children = atoi(argv[1]), failed = 0;
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, waiting, NULL);
    while (started < 3) // QEMU's child of a fork while a thread starts may wait for ever: its lock
        usleep(1000);
    for (int c = 0; c < children; c++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (int i = 0; i < 3; i++)
                pthread_create(&threads[i], NULL, working, (void *)1000L);
            for (int i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        failed += status != 0;
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("%d failed\n", failed);
    return 0;
}
