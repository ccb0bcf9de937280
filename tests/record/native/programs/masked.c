/* Threads that are started with every signal blocked, as xz starts its own. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

static void *work(void *seed) {
    unsigned long sum = (unsigned long)seed;
    for (long i = 0; i < 300000000; i++)
        sum = i % 3 ? sum * 31 + i : sum ^ i;
    return (void *)sum;
}

int main(void) {
    sigset_t all, before;
    pthread_t threads[3];
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (int i = 0; i < 3; i++) {
        void *sum;
        pthread_join(threads[i], &sum);
        printf("%lx\n", (unsigned long)sum);
    }
}
