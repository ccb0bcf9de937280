/* What straightforward C does to sample a trace in columns: every branch goes into a ring, and
 * every `period` branches the ring is copied out, newest first.  Class 6 (fell through) is
 * counted and not recorded.  Knows no freeze, CPL, mode, LER or second event. */
#include <stddef.h>
#include <stdint.h>

struct record {
    uint64_t from, to, info;
};

static inline uint64_t info_of(uint8_t cls, uint8_t flags, uint64_t cycles) {
    uint64_t type = cls < 8 ? cls : 8;
    return (cycles > 0xFFFF ? 0xFFFF : cycles) | 1ull << 60 | type << 56 | (uint64_t)flags << 61;
}

/* Samples of `counted` classes (a bit each); how many there were. */
size_t replay_ring(const uint64_t *from, const uint64_t *to, const uint8_t *cls,
                   const uint8_t *flags, const uint32_t *cycles, size_t n, uint32_t counted,
                   uint64_t period, struct record *out) {
    struct record ring[32] = {{0, 0, 0}};
    uint32_t head = 0;
    uint64_t since = 0, left = period;
    size_t samples = 0;
    for (size_t i = 0; i < n; i++) {
        since += cycles[i];
        if (cls[i] != 6) {
            head = (head + 1) & 31;
            ring[head] = (struct record){from[i], to[i], info_of(cls[i], flags[i], since)};
            since = 0;
        }
        left -= counted >> cls[i] & 1;
        if (left == 0) {
            for (uint32_t k = 0; k < 32; k++)
                out[32 * samples + k] = ring[(head - k) & 31];
            samples++;
            left = period;
        }
    }
    return samples;
}
