/* Rounds with a branch of every kind: direct and indirect call, return, indirect jump, conditional and
 * direct jump; every 16th with a system call. */
#include <sys/syscall.h>
#include <unistd.h>
static volatile unsigned sum;
__attribute__((noinline)) static void leaf(unsigned x) { sum += x; }
__attribute__((noinline)) static void middle(unsigned x) { leaf(x); sum ^= 1; }
static void (*volatile called[2])(unsigned) = {leaf, middle};
__attribute__((noinline)) static void around(unsigned x) {
    static void *const places[] = {&&even, &&odd};
    goto *places[x & 1];
even:
    middle(x);
    goto out;
odd:
    called[x >> 1 & 1](x);
    sum -= 3;
out:
    sum -= 1;
}
__attribute__((noinline)) static void rounds(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        around(i * 2654435761u >> 7);
        if (i % 16 == 0)
            syscall(SYS_getppid);
    }
}
