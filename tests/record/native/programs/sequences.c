/* Counters per processor, incremented by restartable sequences that run long enough to be
 * interrupted: each increment that is not restarted loses others. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/rseq.h>

static struct { long value; char padding[120]; } counters[4096] __attribute__((aligned(128)));

static void increment(struct rseq *area) {
    for (int done = 0; !done;)
        __asm__ volatile(
            ".pushsection __rseq_cs, \"aw\"\n.balign 32\n3: .long 0, 0\n.quad 1f, 2f - 1f, 4f\n"
            ".popsection\n"
            "lea 3b(%%rip), %%rax\nmov %%rax, 8(%1)\n"
            "1: mov (%1), %%eax\nshl $7, %%rax\nlea (%2, %%rax), %%rcx\nmov (%%rcx), %%rdx\n"
            "mov $60, %%r8d\n5: dec %%r8d\njnz 5b\ninc %%rdx\nmov %%rdx, (%%rcx)\n"
            "2: mov $1, %0\njmp 6f\n.byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n4: xor %0, %0\n6:\n"
            : "+r"(done) : "r"(area), "r"(counters)
            : "rax", "rcx", "rdx", "r8", "memory", "cc");
}

static void *work(void *unused) {
    struct rseq *area = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
    for (int i = 0; i < 2000000; i++)
        increment(area);
    area->rseq_cs = 0;
    return unused;
}

int main(void) {
    pthread_t threads[6];
    long sum = 0;
    for (int i = 0; i < 6; i++)
        pthread_create(&threads[i], 0, work, 0);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], 0);
    for (int i = 0; i < 4096; i++)
        sum += counters[i].value;
    printf("%ld\n", sum);
}
