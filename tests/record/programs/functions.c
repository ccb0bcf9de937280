/* Functions to be called one by one, without a program around them. */
#include <stdlib.h>

static long twice(long n) { return n < 2 ? n : 2 * n; }

long fib(long n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static long (*const table[])(long) = {twice, fib};

long through_table(long which, long n) { return table[which & 1](n); }

long length(const char *text) {
    long n = 0;
    while (text[n])
        n++;
    return n;
}

long weighted(long a, long b, long c, long d, long e, long f, long g, long h) {
    volatile char room[64];
    for (int i = 0; i < 64; i++)
        room[i] = (char)a;
    return a + b + c + d + e + f + 10 * g + 100 * h + room[a];
}

long allocates(long n) { return (long)malloc(n); }
long reads(const long *place) { return *place; }
long writes(long *place) { return *place = 1; }
long divides(long a, long b) { return a / b; }
