/* The first process of a guest: receives a command and its files from the host, runs it, sends
 * back what it wrote.  Port F6H is described in pylbr/embed/channel.py.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define CHANNEL 0xf6
#define EXIT_PORT 0xf4
#define BUSYBOX "/bin/busybox"

enum operation { READY = 1, RECEIVE = 2, SEND = 3 };

static unsigned char buffer[1 << 18];

static long channel(enum operation operation, void *data, unsigned long size) {
    long result = operation;
    for (unsigned long i = 0; i < size; i += 4096)
        ((volatile unsigned char *)data)[i] = ((volatile unsigned char *)data)[i];
    __asm__ volatile("outl %%eax, $0xf6" : "+a"(result) : "D"(data), "S"(size) : "memory");
    return result;
}

static void end(int status) {
    __asm__ volatile("outl %%eax, $0xf4" : : "a"(status));
    for (;;)
        pause();
}

static void fail(const char *what) {
    fprintf(stderr, "init: %s: %s\n", what, strerror(errno));
    end(125);
}

static int run(char *const arguments[], int input, int output) {
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (!child) {
        setsid();
        dup2(input, 0);
        ioctl(0, TIOCSCTTY, 0); /* which does nothing to /dev/null */
        if (output >= 0) {
            dup2(output, 1);
            dup2(output, 2);
        }
        execv(arguments[0], arguments);
        _exit(127);
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int shell(const char *line) {
    char *const arguments[] = {BUSYBOX, "sh", "-c", (char *)line, NULL};
    return run(arguments, open("/dev/null", O_RDONLY), -1);
}

static void receive(const char *path) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0)
        fail(path);
    for (long n; (n = channel(RECEIVE, buffer, sizeof buffer)) > 0;)
        if (write(file, buffer, (size_t)n) != n)
            fail(path);
    close(file);
}

static void send_file(const char *path) {
    int file = open(path, O_RDONLY);
    if (file < 0)
        fail(path);
    for (ssize_t n; (n = read(file, buffer, sizeof buffer)) > 0;)
        if (channel(SEND, buffer, (unsigned long)n) != n)
            fail("send");
    close(file);
}

/* The second serial port, without what a terminal does to lines. */
static int output(void) {
    int port = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
    struct termios raw;
    if (port < 0 || tcgetattr(port, &raw))
        fail("/dev/ttyS1");
    cfmakeraw(&raw);
    tcsetattr(port, TCSANOW, &raw);
    return port;
}

static char *read_line(const char *path) {
    int file = open(path, O_RDONLY);
    ssize_t n = file < 0 ? -1 : read(file, buffer, sizeof buffer - 1);
    if (n < 0)
        fail(path);
    close(file);
    buffer[n] = 0;
    return strdup((char *)buffer);
}

static void set(const char *path, const char *value) {
    int file = open(path, O_WRONLY);
    if (file >= 0) {
        (void)!write(file, value, strlen(value));
        close(file);
    }
}

static void set_up(void) {
    mount("proc", "/proc", "proc", 0, "");
    mount("sysfs", "/sys", "sysfs", 0, "");
    mount("dev", "/dev", "devtmpfs", 0, "");
    mount("debugfs", "/sys/kernel/debug", "debugfs", 0, "");
    mount("tmp", "/tmp", "tmpfs", 0, "");
    int console = open("/dev/console", O_RDWR);
    for (int n = 0; n < 3; n++)
        dup2(console, n);
    /* Samples are slow in instructions here; the kernel must not throttle them for it. */
    set("/proc/sys/kernel/perf_cpu_time_max_percent", "0");
    /* An oops ends the run, with a report. */
    set("/proc/sys/kernel/panic_on_oops", "1");
    setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", 1);
    setenv("HOME", "/root", 1);
    setenv("TERM", "dumb", 1);
    setenv("PERF_PAGER", "cat", 1);
    setenv("PAGER", "cat", 1);
    if (iopl(3))
        fail("iopl");
}

int main(void) {
    set_up();
    channel(READY, NULL, 0);
    receive("/run/in");
    if (shell("cd /work && busybox cpio -idm < /run/in 2> /dev/null && rm /run/in &&"
              " touch -d @1 /run/mark"))
        fail("the files from the host");
    char *command = read_line("/work/.command");
    unlink("/work/.command");
    if (chdir("/work"))
        fail("/work");
    int port = output(), status;
    if (*command) {
        char *const arguments[] = {BUSYBOX, "sh", "-c", command, NULL};
        status = run(arguments, open("/dev/null", O_RDONLY), port);
    } else {
        char *const arguments[] = {BUSYBOX, "sh", NULL};
        int terminal = open("/dev/ttyS0", O_RDWR);
        status = run(arguments, terminal, terminal);
    }
    tcdrain(port);
    if (shell("busybox find . -type f -newer /run/mark > /run/list &&"
              " busybox cpio -o -H newc < /run/list > /run/out 2> /dev/null"))
        fail("the files for the host");
    send_file("/run/out");
    end(status);
}
