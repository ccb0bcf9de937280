/* Reserves address space: GiB of it, without or with access. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
    int protection = argc > 2 ? PROT_READ | PROT_WRITE : PROT_NONE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (argc > 2 ? 0 : MAP_NORESERVE);
    void *at = mmap(0, atol(argv[1]) << 30, protection, flags, -1, 0);
    puts(at == MAP_FAILED ? strerror(errno) : "reserved");
    return 0;
}
