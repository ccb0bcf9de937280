/* All that a window may not disturb: x87, vector and mask registers, MXCSR, flags, GS, the red zone,
 * and RSP used as a number. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t block[64];

__attribute__((target("avx512f,avx512bw,avx512vl"))) static uint64_t wide(long n) {
    __m512i sum = _mm512_set1_epi32(5);
    uint64_t hash = 0;
    for (long i = 0; i < n; i++) {
        sum = _mm512_add_epi32(sum, _mm512_set1_epi32((int)i));
        hash = hash * 31 + _mm512_cmpgt_epi32_mask(sum, _mm512_set1_epi32(7));
        if (hash & 1)
            hash ^= (uint64_t)i;
    }
    return hash + (uint64_t)_mm512_reduce_add_epi32(sum);
}

static uint64_t narrow(long n) {
    __m128d a = _mm_set1_pd(1.5);
    long double x = 1;
    uint64_t hash = 0;
    _mm_setcsr(_mm_getcsr() | _MM_ROUND_UP);
    for (long i = 0; i < n; i++) {
        a = _mm_add_pd(_mm_mul_pd(a, _mm_set1_pd(1.0000001)), _mm_set1_pd(1e-9));
        x = x * 1.0000001L + 1e-9L;
        uint64_t v;
        __asm__ volatile("mov %1, -8(%%rsp)\nmov %1, %0\nadd %0, %0\nadc -8(%%rsp), %0\n"
                         : "=&r"(v) : "r"(hash + (uint64_t)i) : "cc", "memory");
        hash = hash * 31 + v;
        if (hash & 64)
            hash ^= 5;
    }
    return hash ^ (uint64_t)(_mm_cvtsd_f64(a) * 1e6) ^ (uint64_t)(x * 1e6L);
}

static uint64_t through_gs(long n) {
    uint64_t sum = 0, v;
    for (int i = 0; i < 64; i++)
        block[i] = (uint64_t)i * 7;
    syscall(SYS_arch_prctl, 0x1001, block); /* ARCH_SET_GS */
    for (long i = 0; i < n; i++) {
        __asm__ volatile("mov %%gs:(%1), %0" : "=r"(v) : "r"((i & 63) * 8));
        sum += v;
        if (sum & 1024)
            sum ^= (uint64_t)i;
    }
    return sum;
}

static uint64_t without_stack(int n) {
    uint64_t r = 0;
    for (int k = 0; k < n; k++)
        __asm__ volatile("mov %%rsp, %%r11\nmov $1, %%rsp\nmov $100000, %%ecx\n"
                         "1: imul $1103515245, %%rsp, %%rsp\ninc %%rsp\ndec %%ecx\njnz 1b\n"
                         "mov %%rsp, %0\nmov %%r11, %%rsp" : "=r"(r) : : "rcx", "r11", "cc", "memory");
    return r;
}

int main(void) {
    uint64_t a = __builtin_cpu_supports("avx512bw") ? wide(8000000) : 0;
    printf("%lx %lx %lx %lx\n", a, narrow(8000000), through_gs(20000000), without_stack(200));
}
