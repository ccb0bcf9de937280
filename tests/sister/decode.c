/* Reads addresses and words, prints the class and target that the recorder's decoder finds. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "aarch64.h"
#include "riscv64.h"

int main(int argc, char **argv) {
    uint64_t address;
    uint32_t word;
    while (scanf("%" SCNx64 " %" SCNx32, &address, &word) == 2) {
        uint64_t to = 0;
        unsigned cls = strcmp(argv[1], "riscv64") ? aarch64_branch(word, address, &to)
                                                  : riscv64_branch(word, address, &to);
        printf("%u %" PRIx64 "\n", cls, to);
    }
    return argc != 2;
}
