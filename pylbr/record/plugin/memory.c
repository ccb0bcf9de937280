/* Reads the guest's memory, which may not be there.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "recorder.h"

#define WORDS_MAX 131072 /* of an argument or environment list */

uint64_t guest_base;

/* Copies without ever faulting; 0 when all bytes were there. */
int guest_read(void *to, uint64_t address, size_t size) {
    struct iovec local = {to, size}, remote = {(void *)(uintptr_t)(address + guest_base), size};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -1;
}

/* The string there, allocated; NULL when it is not readable or longer than the kernel takes. */
char *guest_string(uint64_t address) {
    size_t room = 256, used = 0;
    char *text = malloc(room);
    while (text && used < 32 * 4096) {
        size_t step = 64 - (address + used) % 64; /* never across a page */
        if (used + step > room)
            text = realloc(text, room *= 2);
        if (!text || guest_read(text + used, address + used, step))
            break;
        if (memchr(text + used, 0, step))
            return text;
        used += step;
    }
    free(text);
    return NULL;
}

char **guest_strings(uint64_t address, size_t *count) {
    size_t room = 64, n = 0;
    char **list = malloc(room * sizeof *list);
    for (uint64_t pointer = 1; list && n < WORDS_MAX; address += 8) {
        if (!address || guest_read(&pointer, address, 8) || !pointer)
            break;
        if (n + 1 >= room)
            list = realloc(list, (room *= 2) * sizeof *list);
        if (list && !(list[n++] = guest_string(pointer)))
            break;
    }
    *count = n;
    return list;
}
