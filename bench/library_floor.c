/* One record after another, as an emulator's loop has them: from liblbrcore by a call, inlined
 * from its header, and a plain C ring either way.  A branch is made where it is recorded. */
#include <lbrcore_inline.h>
#include <stdlib.h>

struct ring {
    lbr_entry entry[32];
    uint32_t head;
};

struct ring *ring_new(void) { return calloc(1, sizeof(struct ring)); }

static inline void ring_one(struct ring *r, const lbr_branch *b) {
    lbr_entry *e = &r->entry[r->head = (r->head + 1) & 31];
    e->from = b->from;
    e->to = b->to;
    uint64_t cycles = b->cycles > 0xFFFF ? 0xFFFF : b->cycles;
    e->info = cycles | 1ull << 60 | (uint64_t)(b->cls < 8 ? b->cls : 8) << 56 |
              (uint64_t)b->flags << 61;
}

void ring_called(struct ring *r, const lbr_branch *b) __attribute__((noinline));
void ring_called(struct ring *r, const lbr_branch *b) { ring_one(r, b); }

#define LOOP(NAME, STATE, RECORD)                                                             \
    void NAME(STATE *s, size_t n, uint8_t cls) {                                              \
        for (size_t i = 0; i < n; i++) {                                                      \
            lbr_branch b = {.from = 0x401000 + (i & 0xFFF), .to = 0x402000, .cycles = 3,      \
                            .instructions = 3, .cls = cls, .cpl_from = 3, .cpl_to = 3};       \
            RECORD(s, &b);                                                                    \
        }                                                                                     \
    }

LOOP(by_call, lbr_state, lbr_record)
LOOP(by_inline, lbr_state, lbr_record_inline)
LOOP(ring_by_call, struct ring, ring_called)
LOOP(ring_by_inline, struct ring, ring_one)

/* The same with the branch's constant part in a word made once, and all in machine registers. */
static inline void ring_kind_one(struct ring *r, uint64_t from, uint64_t to, uint32_t cycles,
                                 uint64_t kind) {
    lbr_branch b = {.from = from, .to = to, .cycles = cycles, .cls = (uint8_t)kind,
                    .flags = (uint8_t)(kind >> 8)};
    ring_one(r, &b);
}

void ring_kind_called(struct ring *r, uint64_t from, uint64_t to, uint32_t cycles, uint64_t kind)
    __attribute__((noinline));
void ring_kind_called(struct ring *r, uint64_t from, uint64_t to, uint32_t cycles, uint64_t kind) {
    ring_kind_one(r, from, to, cycles, kind);
}

void nothing_called(void *r, uint64_t from, uint64_t to, uint32_t cycles, uint64_t kind)
    __attribute__((noinline));
void nothing_called(void *r, uint64_t from, uint64_t to, uint32_t cycles, uint64_t kind) {
    __asm__ volatile("" : : "r"(r), "r"(from), "r"(to), "r"(cycles), "r"(kind));
}

#define KIND_LOOP(NAME, STATE, RECORD, AT)                                                    \
    void NAME(STATE *s, size_t n, uint8_t cls) {                                              \
        uint64_t kind = lbr_kind(cls, 0, 3, 3);                                               \
        for (size_t i = 0; i < n; i++)                                                        \
            RECORD(AT, 0x401000 + (i & 0xFFF), 0x402000, 3, kind);                            \
    }

KIND_LOOP(kind_by_call, lbr_state, lbr_record_kind, s)
KIND_LOOP(kind_by_inline, lbr_state, lbr_record_kind_inline, s)
KIND_LOOP(ring_kind_by_call, struct ring, ring_kind_called, s)
KIND_LOOP(ring_kind_by_inline, struct ring, ring_kind_one, s)
KIND_LOOP(nothing_by_call, void, nothing_called, s)

uint64_t nothing_held(void *r, uint64_t held, uint64_t from, uint64_t to, uint32_t cycles,
                      uint64_t kind) __attribute__((noinline));
uint64_t nothing_held(void *r, uint64_t held, uint64_t from, uint64_t to, uint32_t cycles,
                      uint64_t kind) {
    __asm__ volatile("" : : "r"(r), "r"(from), "r"(to), "r"(cycles), "r"(kind));
    return held + 1;
}

#define HELD_LOOP(NAME, STATE, HOLD, RECORD, RELEASE)                                         \
    void NAME(STATE *s, size_t n, uint8_t cls) {                                              \
        uint64_t kind = lbr_kind(cls, 0, 3, 3), held = HOLD(s);                               \
        for (size_t i = 0; i < n; i++)                                                        \
            held = RECORD(s, held, 0x401000 + (i & 0xFFF), 0x402000, 3, kind);                \
        RELEASE(s, held);                                                                     \
    }

static inline uint64_t nothing_hold(void *r) { return !!r; }
static inline void nothing_release(void *r, uint64_t held) { *(volatile uint64_t *)r = held; }

HELD_LOOP(held_by_call, lbr_state, lbr_hold, lbr_record_held, lbr_release)
HELD_LOOP(held_by_inline, lbr_state, lbr_hold_inline, lbr_record_held_inline, lbr_release_inline)
HELD_LOOP(nothing_by_held, void, nothing_hold, nothing_held, nothing_release)

lbr_state *facility(uint64_t ctl) {
    lbr_config config = {.flavour = LBR_ARCHITECTURAL, .depth_bitmap = 15, .linear_width = 48,
                         .ctl_mask = 0x7F000F, .info_mask = 0xFF0000000000FFFFull};
    lbr_state *state = lbr_create(&config);
    if (state)
        lbr_write_ctl(state, ctl);
    return state;
}
