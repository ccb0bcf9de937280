/* For LD_PRELOAD: the n-th call of one kind fails, once or from then on.
 *
 * Nothing fails until fault_arm() is called, so that programs that are started are spared.  Standard
 * error stays writable: the message about the failure is what is looked at.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, WRITE, READ, FSYNC, RENAME, MMAP, MALLOC, OPEN, FORK, PTRACE, PERF, KINDS };
enum manner { ONCE, FROM_THEN_ON, HALF };  /* HALF: transfers some bytes fewer */

/* Smaller ones are the interpreter's, and the buffers (64 KiB) in which NumPy 2.4 casts indices: it
 * writes into them without a look at what it was given.
 */
#define LARGE ((64 << 10) + 1)

static long seen[KINDS], nth, fired;
static int armed, error_number, way;
static pid_t owner;  /* not what it starts, before and after exec() */

void fault_arm(int kind, long n, int number, int manner)
{
    for (int i = 0; i < KINDS; i++)
        seen[i] = 0;
    nth = n, error_number = number, way = manner, fired = 0;
    owner = getpid();
    armed = kind ? kind : -1;  /* -1: counts alone */
}

long fault_disarm(void)
{
    armed = 0;
    return fired;
}

long fault_seen(int kind)
{
    return seen[kind];
}

static int fails(enum kind kind)
{
    if (!armed || getpid() != owner)
        return 0;
    long n = __atomic_add_fetch(&seen[kind], 1, __ATOMIC_RELAXED);
    if (armed != (int)kind || (way == FROM_THEN_ON ? n < nth : n != nth))
        return 0;
    fired++;
    if (way != HALF)
        errno = error_number;
    return 1;
}

/* Standard error, and /dev/null. */
static int spared(int file)
{
    struct stat found;
    return file == 2 || (fstat(file, &found) == 0 && S_ISCHR(found.st_mode));
}

/* Pipes between processes do not fail so, and the pools of Python then wait for ever. */
static int piped(enum kind kind, int file)
{
    struct stat found;
    return kind == READ && way != HALF && fstat(file, &found) == 0 && S_ISFIFO(found.st_mode);
}

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

#define TRANSFER(kind, name, type, more_words, more_names)                     \
    ssize_t name(int file, type data, size_t size more_words)                  \
    {                                                                          \
        if (size && !spared(file) && !piped(kind, file) && fails(kind)) {                            \
            if (way != HALF)                                                   \
                return -1;                                                     \
            size = size / 2 + 1;                                               \
        }                                                                      \
        return REAL(name)(file, data, size more_names);                        \
    }
#define AND ,
TRANSFER(WRITE, write, const void *, , )
TRANSFER(WRITE, pwrite, const void *, AND off_t at, AND at)
TRANSFER(WRITE, pwrite64, const void *, AND off64_t at, AND at)
TRANSFER(READ, read, void *, , )
TRANSFER(READ, pread, void *, AND off_t at, AND at)
TRANSFER(READ, pread64, void *, AND off64_t at, AND at)

ssize_t preadv(int file, const struct iovec *parts, int count, off_t at)
{
    return way != HALF && fails(READ) ? -1 : REAL(preadv)(file, parts, count, at);
}

ssize_t preadv64(int file, const struct iovec *parts, int count, off64_t at)
{
    return way != HALF && fails(READ) ? -1 : REAL(preadv64)(file, parts, count, at);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    if (count && !spared(file) && fails(WRITE)) {
        if (way != HALF)
            return -1;
        count = 1;
    }
    return REAL(writev)(file, parts, count);
}

int fsync(int file)
{
    return fails(FSYNC) ? -1 : REAL(fsync)(file);
}

int fdatasync(int file)
{
    return fails(FSYNC) ? -1 : REAL(fdatasync)(file);
}

int rename(const char *from, const char *to)
{
    return fails(RENAME) ? -1 : REAL(rename)(from, to);
}

int renameat(int at, const char *from, int there, const char *to)
{
    return fails(RENAME) ? -1 : REAL(renameat)(at, from, there, to);
}

#define MAP(name, offset)                                                                   \
    void *name(void *where, size_t size, int protection, int flags, int file, offset at)    \
    {                                                                                       \
        if (fails(MMAP))                                                                    \
            return MAP_FAILED;                                                              \
        return REAL(name)(where, size, protection, flags, file, at);                        \
    }
MAP(mmap, off_t)
MAP(mmap64, off64_t)

#define OPENS(name, more_words, more_names)                                    \
    int name(more_words const char *path, int flags, ...)                      \
    {                                                                          \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;\
        va_end(rest);                                                          \
        return fails(OPEN) ? -1 : REAL(name)(more_names path, flags, mode);    \
    }
OPENS(open, , )
OPENS(open64, , )
OPENS(openat, int at AND, at AND)
OPENS(openat64, int at AND, at AND)

pid_t fork(void)
{
    return fails(FORK) ? -1 : REAL(fork)();
}

/* The frame of a wrapper is gone when the real one returns for the second time: fork() does. */
pid_t vfork(void)
{
    return fork();
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *), *data = va_arg(rest, void *);
    va_end(rest);
    return fails(PTRACE) ? -1 : REAL(ptrace)(request, pid, address, data);
}

long syscall(long number, ...)
{
    long word[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        word[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_perf_event_open && fails(PERF))
        return -1;
    return REAL(syscall)(number, word[0], word[1], word[2], word[3], word[4], word[5]);
}

/* dlsym() itself allocates: the C library's other names of its allocator. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

void *malloc(size_t size)
{
    return size >= LARGE && fails(MALLOC) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return count && size >= LARGE / count && fails(MALLOC) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return size >= LARGE && fails(MALLOC) ? NULL : __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return size >= LARGE && fails(MALLOC) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **where, size_t alignment, size_t size)
{
    if (size >= LARGE && fails(MALLOC))
        return ENOMEM;
    *where = __libc_memalign(alignment, size);
    return *where ? 0 : ENOMEM;
}
