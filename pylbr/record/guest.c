/* What the guest asks of the kernel, as far as it bears on branches: mappings of code,
 * signal handlers, and programs that it executes, which are kept under QEMU.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "recorder.h"

/* Numbers of the guest's system calls (x86-64), whatever the host is. */
enum { CALL_MMAP = 9, CALL_MPROTECT = 10, CALL_RT_SIGACTION = 13, CALL_RT_SIGRETURN = 15,
       CALL_CLONE = 56, CALL_EXECVE = 59, CALL_EXECVEAT = 322 };

#define HANDLERS 1024
#define WORDS_MAX 131072 /* of an argument or environment list */

static uint64_t guest_base;
static uint64_t handlers[HANDLERS], restorers[16];
static char qemu[PATH_MAX], plugin_option[2 * PATH_MAX];
static const char *plugin_path = "", *wire_path = "";
static __thread uint64_t call_args[6];

/* ---- memory of the guest ---- */

/* Copies without ever faulting; 0 when all bytes were there. */
static int guest_read(void *to, uint64_t address, size_t size) {
    struct iovec local = {to, size}, remote = {(void *)(uintptr_t)(address + guest_base), size};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -1;
}

/* The string there, allocated; NULL when it is not readable or longer than the kernel takes. */
static char *guest_string(uint64_t address) {
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

static char **guest_strings(uint64_t address, size_t *count) {
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

/* ---- mappings ---- */

static void report_mapping(recorder_cpu *cpu, uint64_t start, uint64_t size, uint64_t offset,
                           const char *path) {
    uint64_t head[3] = {start, size, offset};
    recorder_message(cpu, WIRE_MMAP, head, sizeof head, path, (uint32_t)strlen(path));
}

/* One line of /proc/self/maps. */
struct mapping {
    uint64_t start, end, offset;
    unsigned long inode;
    dev_t device;
    int executable; /* on the host; QEMU maps the guest's code as data */
    const char *path;
};

typedef void (*visitor)(recorder_cpu *cpu, const struct mapping *mapping, const void *data);

static void visit_maps(recorder_cpu *cpu, visitor visit, const void *data) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[PATH_MAX + 128];
    while (maps && fgets(line, sizeof line, maps)) {
        struct mapping m;
        unsigned major, minor;
        char permissions[8];
        int at = 0;
        if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu %n", &m.start, &m.end, permissions, &m.offset,
                   &major, &minor, &m.inode, &at) < 7)
            continue;
        line[strcspn(line, "\n")] = 0;
        m.start -= guest_base, m.end -= guest_base;
        m.device = makedev(major, minor);
        m.executable = permissions[2] == 'x';
        m.path = m.inode ? line + at : "//anon";
        visit(cpu, &m, data);
    }
    if (maps)
        fclose(maps);
}

/* A guest's range that has become executable. */
struct range {
    uint64_t low, high;
};

static void report_in_range(recorder_cpu *cpu, const struct mapping *m, const void *data) {
    const struct range *range = data;
    uint64_t low = m->start > range->low ? m->start : range->low;
    uint64_t high = m->end < range->high ? m->end : range->high;
    if (low < high)
        report_mapping(cpu, low, high - low, m->offset + (low - m->start), m->path);
}

/* The executable segments of a program that QEMU itself has loaded. */
struct program {
    struct stat file;
    int count;
    Elf64_Phdr segments[16];
};

/* The host joins neighbouring segments, since to it all are data. */
static void report_segments(recorder_cpu *cpu, const struct mapping *m, const void *data) {
    const struct program *program = data;
    if (m->executable || m->inode != program->file.st_ino || m->device != program->file.st_dev)
        return;
    for (int i = 0; i < program->count; i++) {
        const Elf64_Phdr *segment = &program->segments[i];
        uint64_t offset = segment->p_offset & ~0xfffull;
        uint64_t end = (segment->p_offset + segment->p_filesz + 0xfff) & ~0xfffull;
        if (offset >= m->offset && offset < m->offset + (m->end - m->start))
            report_mapping(cpu, m->start + (offset - m->offset), end - offset, offset, m->path);
    }
}

/* Reports where the file's code is; *interpreter is its PT_INTERP, or empty. */
static void report_program(recorder_cpu *cpu, const char *path, char *interpreter) {
    struct program program = {.count = 0};
    Elf64_Ehdr elf = {.e_phnum = 0};
    Elf64_Phdr header;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *interpreter = 0;
    if (fd < 0 || fstat(fd, &program.file) || pread(fd, &elf, sizeof elf, 0) != sizeof elf)
        elf.e_phnum = 0;
    for (int i = 0; i < elf.e_phnum && i < 64 && program.count < 16; i++) {
        off_t at = (off_t)(elf.e_phoff + (uint64_t)i * elf.e_phentsize);
        if (pread(fd, &header, sizeof header, at) != sizeof header)
            break;
        if (header.p_type == PT_LOAD && header.p_flags & PF_X)
            program.segments[program.count++] = header;
        if (header.p_type == PT_INTERP && header.p_filesz && header.p_filesz < PATH_MAX &&
            pread(fd, interpreter, header.p_filesz, (off_t)header.p_offset) > 0)
            interpreter[header.p_filesz - 1] = 0;
    }
    if (program.count)
        visit_maps(cpu, report_segments, &program);
    if (fd >= 0)
        close(fd);
}

void guest_started(recorder_cpu *cpu, uint64_t base) {
    char interpreter[PATH_MAX], path[PATH_MAX];
    guest_base = base;
    const char *binary = qemu_plugin_path_to_binary();
    if (!binary || !realpath(binary, path))
        return;
    recorder_message(cpu, WIRE_COMM, path, (uint32_t)strlen(path), NULL, 0);
    report_program(cpu, path, interpreter);
    if (*interpreter)
        report_program(cpu, interpreter, path);
}

static void mapped(recorder_cpu *cpu, uint64_t address, uint64_t size, int fd, uint64_t offset) {
    char link[64], path[PATH_MAX] = "//anon";
    if (fd >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
    }
    report_mapping(cpu, address, (size + 4095) & ~4095ull, offset, path);
}

/* ---- signals ---- */

int guest_is_handler(uint64_t address) {
    for (size_t at = address % HANDLERS, i = 0; i < HANDLERS; i++, at = (at + 1) % HANDLERS) {
        if (handlers[at] == address)
            return 1;
        if (!handlers[at])
            return 0;
    }
    return 0;
}

static void remember_handler(uint64_t action) {
    uint64_t fields[3]; /* handler, flags, restorer */
    if (!action || guest_read(fields, action, sizeof fields) || fields[0] < 2)
        return;
    for (int i = 0; i < 16; i++) {
        if (restorers[i] && restorers[i] != fields[2])
            continue;
        restorers[i] = fields[2];
        break;
    }
    for (size_t at = fields[0] % HANDLERS, i = 0; i < HANDLERS; i++, at = (at + 1) % HANDLERS) {
        if (handlers[at] && handlers[at] != fields[0])
            continue;
        handlers[at] = fields[0];
        break;
    }
}

/* A frame's first word is the restorer's address; a plain call of the handler has none.
 * Layout of x86-64's rt_sigframe: restorer, ucontext (flags, link, stack, then the registers
 * in the order of gregs), siginfo. */
void guest_handler_entered(unsigned vcpu, const uint64_t *registers) {
    enum { RSP = 4, RSI = 6, RDI = 7 };
    enum { FRAME_RIP = 8 + 40 + 16 * 8 };
    uint64_t restorer, address;
    int32_t info[3];
    if (!registers || guest_read(&restorer, registers[RSP], 8) || restorer < 2)
        return;
    int known = 0;
    for (int i = 0; i < 16; i++)
        known |= restorers[i] == restorer;
    if (!known || guest_read(&address, registers[RSP] + FRAME_RIP, 8) ||
        guest_read(info, registers[RSI], sizeof info))
        return;
    uint64_t number = registers[RDI];
    /* SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV that the kernel made, not a sender. */
    int fault = (number == 4 || number == 5 || number == 7 || number == 8 || number == 11) &&
                info[2] > 0;
    recorder_event(&recorder_cpus[vcpu], fault ? WIRE_SYNCHRONOUS : WIRE_ASYNCHRONOUS, &address);
}

/* ---- exec ---- */

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
    *reason = "not an x86-64 program";
    return elf.e_ident[EI_CLASS] == ELFCLASS64 && elf.e_machine == EM_X86_64 ? RUN_HERE
                                                                             : RUN_NATIVE;
}

static void report_native(recorder_cpu *cpu, const char *path, const char *reason) {
    recorder_message(cpu, WIRE_NATIVE, path, (uint32_t)strlen(path) + 1, reason,
                     (uint32_t)strlen(reason));
}

/* argv for QEMU: itself, the plugin, variables that must not act on QEMU, the program. */
static char **qemu_arguments(const char *path, char **prefix, size_t prefixes, char **argv,
                             size_t argc, char **env, size_t *variables) {
    char **list = calloc(argc + prefixes + 2 * *variables + 10, sizeof *list);
    size_t n = 0, kept = 0;
    if (!list)
        return NULL;
    list[n++] = qemu;
    list[n++] = "-plugin";
    list[n++] = plugin_option;
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
static void follow_exec(recorder_cpu *cpu, char *path, uint64_t argv_at, uint64_t envp_at) {
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
    char **list = qemu_arguments(file, prefix, prefixes, argv, argc, env, &variables);
    env = list ? realloc(env, (variables + 1) * sizeof *env) : NULL;
    if (!env)
        return;
    env[variables] = NULL;
    execve(qemu, list, env);
    report_native(cpu, path, strerror(errno));
}

static char *exec_path(uint64_t address, int directory, int flags) {
    char link[64], real[PATH_MAX];
    char *path = guest_string(address);
    if (!path)
        return NULL;
    ssize_t length = -1;
    if (!strcmp(path, "/proc/self/exe"))
        return strdup(qemu_plugin_path_to_binary());
    if (directory == AT_FDCWD || path[0] == '/')
        return path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    length = readlink(link, real, sizeof real - 1);
    if (length <= 0 || (!*path && !(flags & AT_EMPTY_PATH)))
        return NULL;
    real[length] = 0;
    if (!*path)
        return strdup(real);
    char *whole = NULL;
    return asprintf(&whole, "%s/%s", real, path) < 0 ? NULL : whole;
}

/* ---- threads ---- */

/* QEMU would abort, or hang for ever. */
static void refuse_thread(recorder_cpu *cpu) {
    const char *path = qemu_plugin_path_to_binary();
    recorder_message(cpu, WIRE_KILLED, path, (uint32_t)strlen(path), NULL, 0);
    kill(getpid(), SIGKILL);
}

/* ---- system calls ---- */

static void call(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                 uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    recorder_cpu *cpu = &recorder_cpus[vcpu];
    uint64_t args[6] = {a1, a2, a3, a4, a5, a6};
    memcpy(call_args, args, sizeof args);
    if (number == CALL_RT_SIGACTION)
        remember_handler(a2);
    else if (number == CALL_RT_SIGRETURN)
        recorder_event(cpu, WIRE_SIGRETURN, NULL);
    if (number == CALL_CLONE && a1 & CLONE_THREAD && recorder_forked_threads() && !repair_done())
        refuse_thread(cpu);
    if (number != CALL_EXECVE && number != CALL_EXECVEAT)
        return;
    int at = number == CALL_EXECVEAT;
    char *path = exec_path(at ? a2 : a1, at ? (int)a1 : AT_FDCWD, at ? (int)a5 : 0);
    if (path)
        follow_exec(cpu, path, at ? a3 : a2, at ? a4 : a3);
}

static void returned(qemu_plugin_id_t id, unsigned vcpu, int64_t number, int64_t result) {
    recorder_cpu *cpu = &recorder_cpus[vcpu];
    const uint64_t *a = call_args;
    if ((number != CALL_MMAP && number != CALL_MPROTECT) || !(a[2] & PROT_EXEC))
        return;
    if (number == CALL_MPROTECT && result == 0) {
        visit_maps(cpu, report_in_range, &(struct range){a[0], a[0] + a[1]});
    } else if (number == CALL_MMAP && (uint64_t)result < -4096ull) {
        mapped(cpu, (uint64_t)result, a[1], a[3] & MAP_ANONYMOUS ? -1 : (int)a[4], a[5]);
    }
}

void guest_install(qemu_plugin_id_t id, int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "wire=", 5))
            wire_path = strdup(argv[i] + 5);
        if (!strncmp(argv[i], "plugin=", 7))
            plugin_path = strdup(argv[i] + 7);
    }
    ssize_t length = readlink("/proc/self/exe", qemu, sizeof qemu - 1);
    qemu[length > 0 ? length : 0] = 0;
    snprintf(plugin_option, sizeof plugin_option, "%s,wire=%s,plugin=%s", plugin_path, wire_path,
             plugin_path);
    qemu_plugin_register_vcpu_syscall_cb(id, call);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, returned);
}
