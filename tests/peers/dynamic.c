/* A position-independent program with shared libraries: qsort calls back into it. */
#include <stdio.h>
#include <stdlib.h>

enum { ITEMS = 3000, ROUNDS = 4 };

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return x < y ? -1 : x > y;
}

static __attribute__((noinline)) unsigned hash(const char *text) {
    unsigned value = 5381;
    while (*text) value = value * 33 ^ (unsigned char)*text++;
    return value;
}

int main(void) {
    static int items[ITEMS];
    unsigned seed = 1, total = 0;
    char text[32];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < ITEMS; i++) {
            seed = seed * 1103515245u + 12345u;
            items[i] = seed >> 3;
        }
        qsort(items, ITEMS, sizeof *items, compare);
        for (int i = 0; i < ITEMS; i += 3) {
            snprintf(text, sizeof text, "%d", items[i]);
            total += hash(text) & 0xFF;
        }
    }
    printf("%u\n", total);
    return 0;
}
