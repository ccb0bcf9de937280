/* Compresses a file with zstd's single-file library, which is not part of this repository:
 * CFLAGS=-I/path/to/zstd python -m tests.record.loop tests/record/programs/compress.c FILE */
#include "zstd.c"

#include <stdio.h>

int main(int argc, char **argv) {
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    static char data[1 << 20], out[1 << 21];
    size_t size = file ? fread(data, 1, sizeof data, file) : 0;
    for (int level = 1; level <= 9; level += 4)
        printf("%zu\n", ZSTD_compress(out, sizeof out, data, size, level));
    return 0;
}
