/* A server: a line "word number" on a Unix socket adds the number to the word's count, and is
 * answered with the count.  All its hints are wrong, so that a better layout shows. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define UNLIKELY_BUT_COMMON(x) __builtin_expect(!!(x), 0)
#define PLACES 4096
#define CLIENTS 32

static struct { char word[32]; long count; } table[PLACES];

static unsigned hash(const char *word) {
    unsigned h = 5381;
    for (; UNLIKELY_BUT_COMMON(*word); word++)
        h = UNLIKELY_BUT_COMMON(*word > 'a') ? h * 33 + (unsigned)*word : h ^ (unsigned)*word;
    return h;
}

static long *place_of(const char *word) {
    unsigned i = hash(word) % PLACES;
    while (UNLIKELY_BUT_COMMON(table[i].word[0])) {
        if (UNLIKELY_BUT_COMMON(!strcmp(table[i].word, word)))
            return &table[i].count;
        i = (i + 1) % PLACES;
    }
    strncpy(table[i].word, word, sizeof table[i].word - 1);
    return &table[i].count;
}

static size_t answer(char *request, char *reply) {
    size_t size = 0;
    char *rest;
    for (char *line = strtok_r(request, "\n", &rest); UNLIKELY_BUT_COMMON(line);
         line = strtok_r(NULL, "\n", &rest)) {
        char word[32];
        long number;
        if (UNLIKELY_BUT_COMMON(sscanf(line, "%31s %ld", word, &number) == 2))
            size += (size_t)sprintf(reply + size, "%ld\n", *place_of(word) += number);
        else
            exit(0);
    }
    return size;
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct pollfd clients[CLIENTS] = {{socket(AF_UNIX, SOCK_SEQPACKET, 0), POLLIN, 0}};
    static char request[8192], reply[65536];
    int count = 1;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (bind(clients[0].fd, (void *)&address, sizeof address) || listen(clients[0].fd, 8))
        return 1;
    for (;;) {
        poll(clients, (nfds_t)count, -1);
        if (clients[0].revents && count < CLIENTS)
            clients[count++] = (struct pollfd){accept(clients[0].fd, 0, 0), POLLIN, 0};
        for (int i = 1; i < count; i++) {
            ssize_t size = clients[i].revents ? read(clients[i].fd, request, sizeof request - 1) : 0;
            if (size > 0) {
                request[size] = 0;
                if (write(clients[i].fd, reply, answer(request, reply)) < 0)
                    return 2;
            } else if (clients[i].revents) {
                close(clients[i].fd);
                clients[i--] = clients[--count];
            }
        }
    }
}
