/* RDMSR and WRMSR of a stretch of MSR numbers, on one processor of liblbrcore. */
#include <lbrcore_cpu.h>
#include <stddef.h>
#include <string.h>

typedef struct answer {
    uint32_t index;
    int32_t read, wrote; /* results: of RDMSR, of WRMSR of 0 */
    uint64_t value;      /* that RDMSR gave */
    uint64_t accepted;   /* bit n: WRMSR of 1 << n does not fault */
    uint64_t stored;     /* bit n: and RDMSR then gives 1 << n */
} answer;

static void each_bit(lbr_cpu *cpu, const lbr_cpu *fresh, answer *found) {
    for (int bit = 0; bit < 64; bit++) {
        uint64_t value = 1ull << bit, read = 0;
        if (lbr_wrmsr(cpu, found->index, value, NULL) >= 0) {
            found->accepted |= value;
            if (lbr_rdmsr(cpu, found->index, &read, NULL) == LBR_OK && read == value)
                found->stored |= value;
        }
        lbr_cpu_copy(cpu, fresh);
    }
}

/* How many of [first, last) answer, the first `room` of them in `found`; -1: no such model, or a
 * refused access changed the processor. */
ptrdiff_t numbers(const char *model, uint64_t first, uint64_t last, answer *found, size_t room) {
    lbr_cpu *cpu = NULL, *fresh = NULL;
    ptrdiff_t count = 0;
    if (lbr_cpu_new(&cpu, model) != LBR_OK || lbr_cpu_new(&fresh, model) != LBR_OK)
        return -1;
    lbr_cpu_copy(cpu, fresh); /* padding too */
    for (uint64_t at = first; at < last; at++) {
        answer here = {.index = (uint32_t)at};
        here.read = lbr_rdmsr(cpu, here.index, &here.value, NULL);
        here.wrote = lbr_wrmsr(cpu, here.index, 0, NULL);
        if (here.read == LBR_GP && here.wrote == LBR_GP)
            continue;
        lbr_cpu_copy(cpu, fresh);
        each_bit(cpu, fresh, &here);
        if ((size_t)count < room)
            found[count] = here;
        count++;
    }
    if (memcmp(cpu, fresh, sizeof(lbr_cpu)) != 0)
        count = -1;
    lbr_cpu_destroy(cpu);
    lbr_cpu_destroy(fresh);
    return count;
}
