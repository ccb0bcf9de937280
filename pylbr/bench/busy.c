/* A program for the rows of profiles: an interpreter that calls through a table, sorts and hashes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t state = 12345;

static uint32_t next(void) { return state = state * 1103515245u + 12345u; }

static int compare(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return a < b ? -1 : a > b;
}

static uint64_t add(uint64_t a, uint64_t b) { return a + b; }
static uint64_t mix(uint64_t a, uint64_t b) { return (a ^ b) * 0x9E3779B97F4A7C15u; }
static uint64_t pick(uint64_t a, uint64_t b) { return a & 1 ? b : a >> 3; }
static uint64_t (*const operations[])(uint64_t, uint64_t) = {add, mix, pick, add};

static uint64_t interpret(const uint8_t *code, int n, uint64_t value) {
    for (int i = 0; i < n; i++) {
        switch (code[i] & 7) {
        case 0: value = operations[code[i] >> 6](value, i); break;
        case 1: while (value & 0xF0) value >>= 1; break;
        case 2: if (value % 3 == 0) value += 7; else value ^= 5; break;
        case 3: value = operations[value & 3](value, code[i]); break;
        default: value += code[i];
        }
    }
    return value;
}

int main(int argc, char **argv) {
    static uint32_t numbers[4096];
    static uint8_t code[4096];
    uint64_t sum = 0;
    for (int round = argc > 1 ? atoi(argv[1]) : 10; round--;) {
        for (int i = 0; i < 4096; i++) {
            numbers[i] = next() >> 8;
            code[i] = next() >> 16;
        }
        qsort(numbers, 4096, sizeof *numbers, compare);
        sum += interpret(code, 4096, numbers[17]);
    }
    printf("%llu\n", (unsigned long long)sum);
    return 0;
}
