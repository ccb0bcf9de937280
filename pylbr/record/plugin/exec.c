/* Programs that the guest executes, which are kept under QEMU.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "recorder.h"
#include "target.h"

static char qemu[PATH_MAX];
static const char *plugin_path = "", *wire_path = "";

enum verdict { RUN_HERE, RUN_NATIVE, LET_FAIL };

/* Looks at what execve would run.  A script's interpreter is put before its arguments. */
static enum verdict inspect(const char *path, char **interpreter, char **option,
                            const char **reason) {
    char text[256];
    struct stat status;
    Elf64_Ehdr elf;
    if (access(path, X_OK) || stat(path, &status) || !S_ISREG(status.st_mode))
        return LET_FAIL;
    if ((status.st_mode & S_ISUID && status.st_uid != geteuid()) ||
        (status.st_mode & S_ISGID && status.st_mode & S_IXGRP && status.st_gid != getegid())) {
        *reason = "set-user-id";
        return RUN_NATIVE;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    if (fd >= 0)
        close(fd);
    if (got < 0) {
        *reason = "not readable";
        return RUN_NATIVE;
    }
    text[got] = 0;
    if (got > 2 && !memcmp(text, "#!", 2)) {
        text[strcspn(text, "\n")] = 0;
        char *rest, *name = strtok_r(text + 2, " \t", &rest);
        if (!name)
            return LET_FAIL;
        *interpreter = strdup(name);
        rest += strspn(rest, " \t");
        size_t length = strlen(rest);
        while (length && strchr(" \t", rest[length - 1]))
            rest[--length] = 0;
        *option = length ? strdup(rest) : NULL;
        return RUN_HERE;
    }
    memcpy(&elf, text, sizeof elf);
    if (got < (ssize_t)sizeof elf || memcmp(elf.e_ident, ELFMAG, SELFMAG))
        return LET_FAIL;
    static char other[64];
    snprintf(other, sizeof other, "not %s program", guest->program);
    *reason = other;
    return elf.e_ident[EI_CLASS] == ELFCLASS64 && elf.e_machine == guest->machine ? RUN_HERE
                                                                                  : RUN_NATIVE;
}

static void report_native(recorder_cpu *cpu, const char *path, const char *reason) {
    recorder_message(cpu, WIRE_NATIVE, path, (uint32_t)strlen(path) + 1, reason,
                     (uint32_t)strlen(reason));
}

/* A comma in an option of QEMU's is written twice. */
static char *escaped(char *to, const char *text) {
    for (; *text; text++) {
        *to++ = *text;
        if (*text == ',')
            *to++ = ',';
    }
    return to;
}

static char *plugin_option(const char *comm) {
    static char option[4 * PATH_MAX + 4096];
    const char *words[] = {"", plugin_path, ",wire=", wire_path, ",plugin=", plugin_path,
                           ",comm=", comm};
    char *end = option;
    for (int i = 0; i < 8; i += 2) {
        end = stpcpy(end, words[i]);
        end = escaped(end, words[i + 1]);
    }
    *end = 0;
    return option;
}

/* argv for QEMU: itself, the plugin, variables that must not act on QEMU, the program. */
static char **qemu_arguments(const char *path, char **prefix, size_t prefixes, char **argv,
                             size_t argc, char **env, size_t *variables,
                             const char *comm) {
    char **list = calloc(argc + prefixes + 2 * *variables + 10, sizeof *list);
    size_t n = 0, kept = 0;
    if (!list)
        return NULL;
    list[n++] = qemu;
    list[n++] = "-plugin";
    list[n++] = plugin_option(comm);
    for (size_t i = 0; i < *variables; i++) {
        if (!strncmp(env[i], "LD_", 3)) {
            list[n++] = "-E";
            list[n++] = env[i];
        } else {
            env[kept++] = env[i];
        }
    }
    *variables = kept;
    list[n++] = "-0";
    list[n++] = prefixes ? prefix[0] : argc ? argv[0] : "";
    list[n++] = (char *)path;
    for (size_t i = 1; i < prefixes; i++)
        list[n++] = prefix[i];
    for (size_t i = 1; i < argc; i++)
        list[n++] = argv[i];
    return list;
}

/* Why a program that is executed now could not be recorded; NULL if it could.  A process may
 * have outlived pylbr, changed its user, or its root. */
static const char *out_of_reach(void) {
    if (__atomic_load_n(&recorder_wire->stopped, __ATOMIC_ACQUIRE))
        return "the recording has ended";
    int fd = open(wire_path, O_RDWR | O_CLOEXEC);
    const char *reason = fd < 0 || access(plugin_path, R_OK) || access(qemu, X_OK)
                             ? "its process cannot reach the recorder any more" : NULL;
    if (fd >= 0)
        close(fd);
    return reason;
}

/* Runs the program under QEMU in place of the guest's execve.  Returns only when the guest's
 * own call shall take its course: it fails, or the program cannot be run here. */
static void follow_exec(recorder_cpu *cpu, char *path, const char *comm, uint64_t argv_at,
                        uint64_t envp_at) {
    char *prefix[16], *interpreter = NULL, *option = NULL;
    const char *file = path, *reason = NULL;
    size_t prefixes = 0, argc, variables;
    /* A script's interpreter may be a script; the kernel allows five levels. */
    for (int level = 0; level < 5; level++) {
        interpreter = option = NULL;
        enum verdict verdict = inspect(file, &interpreter, &option, &reason);
        if (verdict == RUN_NATIVE)
            report_native(cpu, file, reason);
        if (verdict != RUN_HERE)
            return;
        if (!interpreter)
            break;
        size_t added = option ? 2 : 1;
        if (!prefixes)
            prefix[prefixes++] = path;
        memmove(prefix + added, prefix, prefixes * sizeof *prefix);
        prefix[0] = interpreter;
        if (option)
            prefix[1] = option;
        prefixes += added;
        file = interpreter;
    }
    if (interpreter)
        return;
    if ((reason = out_of_reach()))
        return report_native(cpu, path, reason);
    char **argv = guest_strings(argv_at, &argc), **env = guest_strings(envp_at, &variables);
    if (!argv || !env)
        return;
    char **list = qemu_arguments(file, prefix, prefixes, argv, argc, env, &variables, comm);
    env = list ? realloc(env, (variables + 1) * sizeof *env) : NULL;
    if (!env)
        return;
    env[variables] = NULL;
    execve(qemu, list, env);
    report_native(cpu, path, strerror(errno));
}

/* A path that leads through a descriptor, which execve() may close: the file's own, or, where it
 * has none any more, that of a descriptor that stays open. */
static char *kept_open(char *path) {
    char real[PATH_MAX], *again = NULL;
    struct stat named, meant;
    if (!path || (strncmp(path, "/proc/", 6) && strncmp(path, "/dev/fd/", 8)) ||
        stat(path, &meant))
        return path;
    if (realpath(path, real) && !stat(real, &named) && named.st_ino == meant.st_ino &&
        named.st_dev == meant.st_dev)
        return strdup(real);
    int fd = open(path, O_RDONLY);
    return fd < 0 || asprintf(&again, "/proc/self/fd/%d", fd) < 0 ? path : again;
}

/* The file that execve() or execveat() shall run, and the name that its process will have: the
 * last part of the path as it was given, or the number of a descriptor. */
static char *exec_path(uint64_t address, int directory, int flags, char comm[16]) {
    char link[64], real[PATH_MAX];
    char *path = guest_string(address), *whole = NULL;
    if (!path)
        return NULL;
    const char *slash = strrchr(path, '/');
    snprintf(comm, 16, "%.15s", slash ? slash + 1 : path);
    if (!strcmp(path, "/proc/self/exe"))
        return strdup(qemu_plugin_path_to_binary());
    if (directory == AT_FDCWD || path[0] == '/')
        return kept_open(path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    if (!*path) {
        snprintf(comm, 16, "%d", directory);
        return flags & AT_EMPTY_PATH ? kept_open(strdup(link)) : NULL;
    }
    ssize_t length = readlink(link, real, sizeof real - 1);
    if (length <= 0)
        return NULL;
    real[length] = 0;
    return asprintf(&whole, "%s/%s", real, path) < 0 ? NULL : whole;
}

void exec_called(recorder_cpu *cpu, uint64_t path_at, int directory, int flags, uint64_t argv,
                 uint64_t environment) {
    char comm[16];
    char *path = exec_path(path_at, directory, flags, comm);
    if (path)
        follow_exec(cpu, path, comm, argv, environment);
}

void exec_install(int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "wire=", 5))
            wire_path = strdup(argv[i] + 5);
        if (!strncmp(argv[i], "plugin=", 7))
            plugin_path = strdup(argv[i] + 7);
    }
    ssize_t length = readlink("/proc/self/exe", qemu, sizeof qemu - 1);
    qemu[length > 0 ? length : 0] = 0;
}
