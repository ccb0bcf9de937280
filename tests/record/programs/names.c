/* Names of threads: given to itself, to another, inherited; and what the program sees itself. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_barrier_t named;

static void work(void) {
    volatile unsigned long sum = 0;
    for (int i = 0; i < 300000; i++)
        sum += i;
}

static void *by_itself(void *name) {
    pthread_setname_np(pthread_self(), name);
    work();
    return 0;
}

static void *by_another(void *unused) {
    pthread_barrier_wait(&named);
    work();
    return 0;
}

static void *heir(void *unused) {
    work();
    return 0;
}

static void *parent(void *name) {
    pthread_t child;
    pthread_setname_np(pthread_self(), name);
    pthread_create(&child, 0, heir, 0);
    pthread_join(child, 0);
    return 0;
}

int main(int argc, char **argv) {
    char name[32] = "";
    pthread_t threads[4];
    FILE *file = fopen("/proc/self/comm", "r");
    if (!fgets(name, sizeof name, file))
        return 1;
    printf("%s", name);
    fflush(stdout);
    pthread_barrier_init(&named, 0, 2);
    pthread_create(&threads[0], 0, by_itself, "DOM Worker");
    pthread_create(&threads[1], 0, by_itself, "[ET_NET 0]");
    pthread_create(&threads[2], 0, by_another, 0);
    pthread_create(&threads[3], 0, parent, "heirloom");
    pthread_setname_np(threads[2], "from outside");
    pthread_barrier_wait(&named);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], 0);
    work();
    prctl(PR_SET_NAME, "a name that is too long");
    work();
    if (fork() == 0) {
        work();
        _exit(0);
    }
    wait(0);
    return 0;
}
