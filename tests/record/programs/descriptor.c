/* Executes a program by its descriptor, which closes on the way: a file's, or that of a copy in
 * memory, which has no path. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (argc > 2) {
        char data[4096];
        int copy = memfd_create("copy", MFD_CLOEXEC);
        for (ssize_t got; (got = read(fd, data, sizeof data)) > 0;)
            if (write(copy, data, (size_t)got) != got)
                return 2;
        fd = copy;
    }
    char *arguments[] = {argv[1], "5", NULL};
    fexecve(fd, arguments, environ);
    perror("fexecve");
    return 3;
}
