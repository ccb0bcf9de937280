/* Address space that the guest reserves.  QEMU 7.2 keeps 24 bytes of real memory for every page of
 * it, used or not: 6 MiB per GiB, 90 GiB for a program built with AddressSanitizer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "recorder.h"

#define SMALL (1ull << 30) /* not worth a look */
#define PAGES_PER_BYTE 170 /* address space that one byte of memory describes: 4096 / 24 */

static int counted = 1; /* this QEMU may need memory for every page */

/* From 8.0 on QEMU keeps ranges, not pages; the interface's version separates 9.0 from older ones. */
void reserve_install(int interface) {
    counted = interface < 2;
}

/* A number in a file, at the start or after `key`; UINT64_MAX if there is none. */
static uint64_t number_in(const char *path, const char *key) {
    char line[256];
    unsigned long long value = ULLONG_MAX;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), "%llu", &value) == 1)
            break;
    if (file)
        fclose(file);
    return value;
}

/* What a control group leaves of its limit; what it caches of files can be had back. */
static uint64_t left_in(const char *group, const char *limit, const char *usage,
                        const char *cache) {
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", group, limit);
    uint64_t most = number_in(path, "");
    snprintf(path, sizeof path, "%s/%s", group, usage);
    uint64_t used = number_in(path, "");
    snprintf(path, sizeof path, "%s/memory.stat", group);
    uint64_t cached = number_in(path, cache);
    if (most == UINT64_MAX || used == UINT64_MAX)
        return UINT64_MAX;
    if (cached != UINT64_MAX)
        used = used > cached ? used - cached : 0;
    return most > used ? most - used : 0;
}

/* Bytes of memory that this process can have: of the machine and of its control groups. */
static uint64_t available(void) {
    char line[PATH_MAX], group[PATH_MAX + 32];
    uint64_t least = number_in("/proc/meminfo", "MemAvailable:");
    if (least != UINT64_MAX)
        least *= 1024;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *name = strrchr(line, ':');
        int second = !strncmp(line, "0::", 3);
        if (!name || (!second && !strstr(line, ":memory:")))
            continue;
        /* From the group up to the root that is seen here. */
        for (name++; name; ) {
            snprintf(group, sizeof group, "/sys/fs/cgroup%s%s", second ? "" : "/memory", name);
            uint64_t left =
                second ? left_in(group, "memory.max", "memory.current", "inactive_file ")
                       : left_in(group, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                 "total_inactive_file ");
            least = left < least ? left : least;
            char *slash = strrchr(name, '/');
            if (!slash || !*name)
                break;
            *slash = 0;
        }
    }
    if (file)
        fclose(file);
    return least;
}

/* Whether the kernel would refuse it: then QEMU fails too, and the program continues. */
static int refused(uint64_t size, uint64_t protection, uint64_t flags) {
    int writable = (int)(protection & PROT_WRITE), kept = flags & MAP_ANONYMOUS && writable;
    int reserve = flags & MAP_NORESERVE || !kept ? MAP_NORESERVE : 0;
    void *probe = mmap(NULL, size, kept ? PROT_READ | PROT_WRITE : PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | reserve, -1, 0);
    if (probe == MAP_FAILED)
        return 1;
    munmap(probe, size);
    return 0;
}

void reserve_called(recorder_cpu *cpu, uint64_t size, uint64_t protection, uint64_t flags) {
    uint64_t needed = size / PAGES_PER_BYTE, there;
    if (!counted || size < SMALL || needed <= (there = available()) / 2 || refused(size, protection, flags))
        return;
    char reason[256];
    const char *path = qemu_plugin_path_to_binary();
    int length = snprintf(reason, sizeof reason,
                          "it reserves %llu GiB of address space, for which QEMU needs %llu MB of "
                          "memory, and %llu MB are available",
                          (unsigned long long)(size >> 30), (unsigned long long)(needed >> 20),
                          (unsigned long long)(there >> 20));
    recorder_message(cpu, WIRE_KILLED, path, (uint32_t)strlen(path) + 1, reason, (uint32_t)length);
    kill(getpid(), SIGKILL);
}
