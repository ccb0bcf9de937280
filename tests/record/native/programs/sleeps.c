/* Waits in calls that a signal ends with EINTR, SA_RESTART or not; says which one before each, and
 * at the end which have been ended so. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int epoll;
static struct epoll_event event;

static int at_poll(void) { return poll(NULL, 0, 300); }
static int at_nanosleep(void) { struct timespec t = {0, 300000000}; return nanosleep(&t, NULL); }
static int at_epoll(void) { return epoll_wait(epoll, &event, 1, 300); }
static int at_select(void) { struct timeval t = {0, 300000}; return select(0, NULL, NULL, NULL, &t); }
/* Not written `mov $N, %eax; syscall`. */
static int at_other(void) { return (int)syscall(SYS_poll, NULL, 0, 300); }

int main(void) {
    static const struct { const char *name; int (*wait)(void); } kinds[] = {
        {"poll", at_poll}, {"nanosleep", at_nanosleep}, {"epoll_wait", at_epoll},
        {"select", at_select}, {"other", at_other},
    };
    const char *ended[5] = {0};
    volatile unsigned s = 1;
    epoll = epoll_create1(0);
    for (int k = 0; k < 100000000; k++)
        s = s * 31 + k;
    printf("%d\n", getpid());
    for (int i = 0; i < 5; i++) {
        printf("%s\n", kinds[i].name);
        fflush(stdout);
        if (kinds[i].wait() < 0 && errno == EINTR)
            ended[i] = kinds[i].name;
    }
    for (int i = 0; i < 5; i++)
        if (ended[i])
            printf("%s was ended\n", ended[i]);
    return 0;
}
