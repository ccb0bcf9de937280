/* Names of threads, as the kernel keeps them: of the program executed, until a thread is given
 * another.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "recorder.h"
#include "target.h"

static int started;
static __thread int name_fd = -1; /* of a file with a thread's name, open to be written */

/* The thread that runs has QEMU's name, and shall have the program's. */
void names_install(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "comm=", 5))
            prctl(PR_SET_NAME, argv[i] + 5);
}

static void report(recorder_cpu *cpu, unsigned type, uint32_t tid, const char *name) {
    recorder_message(cpu, type, &tid, sizeof tid, name, (uint32_t)strlen(name));
}

static void report_own(recorder_cpu *cpu, unsigned type) {
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    report(cpu, type, (uint32_t)syscall(SYS_gettid), name);
}

void names_started(recorder_cpu *cpu) {
    report_own(cpu, WIRE_COMM);
    started = 1;
}

/* A new thread has the name of the one that made it. */
void names_attached(recorder_cpu *cpu) {
    if (started)
        report_own(cpu, WIRE_NAME);
}

/* pthread_setname_np() of another thread writes to /proc/self/task/TID/comm. */
static void written(recorder_cpu *cpu) {
    char link[64], path[PATH_MAX], name[16];
    unsigned tid;
    snprintf(link, sizeof link, "/proc/self/fd/%d", name_fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    if (sscanf(path, "/proc/%*u/task/%u/comm", &tid) != 1 &&
        sscanf(path, "/proc/%u/comm", &tid) != 1)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    length = fd < 0 ? -1 : read(fd, name, sizeof name);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return;
    name[length - 1] = 0; /* the kernel ends it with a newline */
    report(cpu, WIRE_NAME, tid, name);
}

static void opened(uint64_t path_at, uint64_t flags, int fd) {
    if ((flags & O_ACCMODE) == O_RDONLY)
        return;
    char *path = guest_string(path_at);
    size_t length = path ? strlen(path) : 0;
    if (length > 5 && !strcmp(path + length - 5, "/comm"))
        name_fd = fd;
    free(path);
}

void names_returned(recorder_cpu *cpu, int64_t number, const uint64_t *args, int64_t result) {
    if (result < 0)
        return;
    if (number == guest->calls.prctl && args[0] == PR_SET_NAME)
        report_own(cpu, WIRE_NAME);
    else if (number == guest->calls.open)
        opened(args[0], args[1], (int)result);
    else if (number == guest->calls.openat)
        opened(args[1], args[2], (int)result);
    else if (number == guest->calls.write && name_fd >= 0 && (int)args[0] == name_fd)
        written(cpu);
    else if (number == guest->calls.close && (int)args[0] == name_fd)
        name_fd = -1;
}
