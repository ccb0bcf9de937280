/* Threads that sleep in every kind of system call, beside some that work, until standard input
 * ends; then it prints which calls have not done what they were to do.  With the number of a signal
 * the main thread sleeps in its handler of that instead. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int ends[2], pair[2], epoll, semaphores, queue, word;
static volatile int ended, urgent;
static pthread_t waiter;
static pthread_barrier_t started;

/* ---- each gives 0 if its call did what it was to do ---- */

static long at_read(void) { char c; return read(ends[0], &c, 1); }
static long at_recv(void) { char c; return recv(pair[0], &c, 1, 0) != 1; }
static long at_poll(void) { struct pollfd p = {ends[0], POLLIN, 0}; return poll(&p, 1, -1) != 1; }
static long at_timed_poll(void) {
    struct pollfd p = {ends[0], POLLIN, 0};
    return poll(&p, 1, 60000) != 1;
}
static long at_ppoll(void) {
    struct pollfd p = {ends[0], POLLIN, 0};
    struct timespec t = {60, 0};
    return ppoll(&p, 1, &t, NULL) != 1;
}
static long at_select(void) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    return select(ends[0] + 1, &set, NULL, NULL, NULL) != 1;
}
static long at_epoll(void) { struct epoll_event e; return epoll_wait(epoll, &e, 1, -1) != 1; }
static long at_epoll_pwait(void) {
    struct epoll_event e;
    sigset_t none;
    sigemptyset(&none);
    return epoll_pwait(epoll, &e, 1, 60000, &none) != 1;
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static long at_nanosleep(void) { /* again and again, so that one is under way */
    while (!ended) {
        struct timespec t = {0, 700000000}, rest = {0, 0};
        double began = now();
        if (nanosleep(&t, &rest) || now() - began < 0.7)
            return 1;
    }
    return 0;
}
static long at_clock_nanosleep(void) {
    while (!ended) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec++;
        if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
            return 1;
    }
    return 0;
}
static long at_futex(void) {
    while (!ended)
        if (syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0) && errno == EINTR)
            return 1;
    return 0;
}
static long at_timed_futex(void) {
    struct timespec t = {60, 0};
    while (!ended)
        if (syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, NULL, 0) && errno != EAGAIN)
            return 1;
    return 0;
}
static long at_semtimedop(void) {
    struct sembuf down = {0, -1, 0};
    struct timespec t = {60, 0};
    return semtimedop(semaphores, &down, 1, &t);
}
static long at_semop(void) { struct sembuf down = {0, -1, 0}; return semop(semaphores, &down, 1); }
static long at_msgrcv(void) {
    struct { long type; char text[8]; } m;
    return msgrcv(queue, &m, 8, 0, 0) != 1;
}
static long at_sigwait(void) {
    sigset_t set;
    siginfo_t info;
    struct timespec t = {60, 0};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return sigtimedwait(&set, &info, &t) != SIGUSR2;
}
static long at_wait(void) {
    pid_t child = fork();
    if (!child) {
        char c;
        close(ends[1]);
        _exit((int)read(ends[0], &c, 1));
    }
    int status = 1;
    return waitpid(child, &status, 0) != child || status;
}

/* ---- threads whose signals and stacks tell of a recorder ---- */

static long at_blocked(void) { /* works with every signal blocked */
    sigset_t then;
    while (!ended)
        ;
    pthread_sigmask(SIG_SETMASK, NULL, &then);
    return !sigismember(&then, SIGURG);
}
static long at_work(void) {
    volatile unsigned s = 1;
    while (!ended)
        s = s * 31 + 7;
    return 0;
}

static void counted(int number) { urgent++; }

static void asleep(int number) {
    char c;
    if (write(1, "asleep\n", 7) == 7 && read(0, &c, 1) == 1)
        urgent = 10;
}

struct kind { const char *name; long (*run)(void); long result; pthread_t thread; };
static struct kind kinds[] = {
    {"read", at_read}, {"recv", at_recv}, {"poll", at_poll}, {"timed poll", at_timed_poll},
    {"ppoll", at_ppoll}, {"select", at_select}, {"epoll_wait", at_epoll},
    {"epoll_pwait", at_epoll_pwait}, {"nanosleep", at_nanosleep},
    {"clock_nanosleep", at_clock_nanosleep}, {"futex", at_futex}, {"timed futex", at_timed_futex},
    {"semtimedop", at_semtimedop}, {"semop", at_semop}, {"msgrcv", at_msgrcv},
    {"sigtimedwait", at_sigwait}, {"waitpid", at_wait},
    {"blocked", at_blocked}, {"work", at_work},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static void *run(void *kind) {
    struct kind *k = kind;
    pthread_barrier_wait(&started);
    k->result = k->run();
    return NULL;
}

/* Sleeps in its handler of a signal; then whether it still has no alternate stack. */
static int in_handler(int number) {
    struct sigaction action = {.sa_handler = asleep};
    stack_t stack;
    char c;
    sigaction(number, &action, NULL);
    if (read(0, &c, 1) != 1)
        return 1;
    raise(number);
    if (sigaltstack(NULL, &stack) || (number != SIGURG && stack.ss_flags != SS_DISABLE))
        return 1;
    return urgent != 10;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return in_handler(atoi(argv[1]));
    struct epoll_event event = {.events = EPOLLIN};
    struct timeval limit = {60, 0};
    struct sigaction count = {.sa_handler = counted};
    sigset_t set;
    if (pipe(ends) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 2;
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event);
    semaphores = semget(IPC_PRIVATE, 1, 0600);
    queue = msgget(IPC_PRIVATE, 0600);
    sigaction(SIGURG, &count, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_barrier_init(&started, NULL, KINDS + 1);
    for (unsigned i = 0; i < KINDS; i++) {
        sigset_t mask;
        sigfillset(&mask);
        pthread_sigmask(SIG_SETMASK, kinds[i].run == at_blocked ? &mask : &set, NULL);
        pthread_create(&kinds[i].thread, NULL, run, &kinds[i]);
        pthread_sigmask(SIG_SETMASK, &set, NULL);
        if (kinds[i].run == at_sigwait)
            waiter = kinds[i].thread;
    }
    pthread_barrier_wait(&started);
    puts("ready");
    fflush(stdout);
    getchar();
    ended = word = 1;
    syscall(SYS_futex, &word, FUTEX_WAKE, 100, NULL, NULL, 0);
    pthread_kill(waiter, SIGUSR2);
    struct sembuf up = {0, 2, 0};
    struct { long type; char text[8]; } m = {1, "x"};
    semop(semaphores, &up, 1);
    msgsnd(queue, &m, 1, 0);
    if (write(pair[1], "x", 1) != 1)
        return 2;
    close(ends[1]);
    for (unsigned i = 0; i < KINDS; i++) {
        pthread_join(kinds[i].thread, NULL);
        if (kinds[i].result)
            printf("%s: %ld\n", kinds[i].name, kinds[i].result);
    }
    semctl(semaphores, 0, IPC_RMID);
    msgctl(queue, IPC_RMID, NULL);
    printf("%d signals that none sent\n", urgent);
    return 0;
}
