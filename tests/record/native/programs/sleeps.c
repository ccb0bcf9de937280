/* Works a little, then waits in calls that a signal ends with EINTR, SA_RESTART or not. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 700, interrupted = 0, epoll = epoll_create1(0);
    volatile unsigned s = 1;
    for (int i = 0; i < rounds; i++) {
        struct timespec pause = {0, 300000};
        struct timeval tv = {0, 300};
        struct epoll_event event;
        int result = 0;
        for (int k = 0; k < 150000; k++)
            s = s * 31 + k;
        switch (i % 4) {
        case 0: result = poll(NULL, 0, 1); break;
        case 1: result = nanosleep(&pause, NULL); break;
        case 2: result = epoll_wait(epoll, &event, 1, 1); break;
        case 3: result = select(0, NULL, NULL, NULL, &tv); break;
        }
        interrupted += result < 0 && errno == EINTR;
    }
    printf("%u %d\n", s, interrupted);
    return interrupted;
}
