/* The floors of the core benchmark: what straightforward C does with the same branches and
 * the same stored fields.  Knows no freeze, no depth, no LER, no validation. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define PY_SSIZE_T_CLEAN
#include "lbrcore.h"

struct ring {
    lbr_entry entry[32];
    uint32_t head;
    uint64_t cycles;
    uint64_t accept; /* truth table of the filtered floor */
};

struct ring *ring_new(uint64_t accept) {
    struct ring *r = calloc(1, sizeof *r);
    if (r)
        r->accept = accept;
    return r;
}

static inline uint64_t info_of(const lbr_branch *b, uint64_t cycles) {
    uint64_t counted = cycles > 0xFFFF ? 0xFFFF : cycles;
    uint64_t type = b->cls < 8 ? b->cls : 8;
    return counted | 1ull << 60 | type << 56 | (uint64_t)b->flags << 61;
}

/* Everything is recorded. */
void ring_plain(struct ring *r, const lbr_branch *b, size_t n) {
    uint32_t head = r->head;
    for (size_t i = 0; i < n; i++) {
        head = (head + 1) & 31;
        lbr_entry *e = &r->entry[head];
        e->from = b[i].from;
        e->to = b[i].to;
        e->info = info_of(&b[i], b[i].cycles);
    }
    r->head = head;
}

/* Class and ring filters by a truth table, no data-dependent jump: the store always happens
 * (33rd slot as a sink), the head moves when it counts. */
void ring_filtered(struct ring *r, const lbr_branch *b, size_t n) {
    static lbr_entry ring[64];
    uint32_t head = r->head;
    uint64_t cycles = r->cycles, accept = r->accept;
    for (size_t i = 0; i < n; i++) {
        uint32_t bit = b[i].cls | (uint32_t)(b[i].cpl_from != 0) << 4
                     | (uint32_t)(b[i].cpl_to != 0) << 5;
        uint64_t taken = accept >> bit & 1;
        cycles += b[i].cycles;
        lbr_entry *e = &ring[(head + 1) & 63];
        e->from = b[i].from;
        e->to = b[i].to;
        e->info = info_of(&b[i], cycles);
        cycles &= taken - 1;
        head += (uint32_t)taken;
    }
    r->head = head;
    r->cycles = cycles;
}

/* The same with an `if`. */
void ring_branchy(struct ring *r, const lbr_branch *b, size_t n) {
    uint32_t head = r->head;
    uint64_t cycles = r->cycles, accept = r->accept;
    for (size_t i = 0; i < n; i++) {
        uint32_t bit = b[i].cls | (uint32_t)(b[i].cpl_from != 0) << 4
                     | (uint32_t)(b[i].cpl_to != 0) << 5;
        cycles += b[i].cycles;
        if (accept >> bit & 1) {
            lbr_entry *e = &r->entry[++head & 31];
            e->from = b[i].from;
            e->to = b[i].to;
            e->info = info_of(&b[i], cycles);
            cycles = 0;
        }
    }
    r->head = head;
    r->cycles = cycles;
}

/* The plain ring as a function of its own, to be called through a pointer. */
static void ring_one(struct ring *r, const lbr_branch *b) {
    lbr_entry *e = &r->entry[r->head = (r->head + 1) & 31];
    e->from = b->from;
    e->to = b->to;
    e->info = info_of(b, b->cycles);
}

void ring_called(struct ring *r, const lbr_branch *b, size_t n, size_t rounds) {
    void (*volatile record)(struct ring *, const lbr_branch *) = ring_one;
    for (size_t k = 0; k < rounds; k++)
        for (size_t i = 0; i < n; i++)
            record(r, &b[i]);
}

/* One call a branch through the table. */
void table_record(const lbrcore_api *api, lbr_state *state, const lbr_branch *b, size_t n,
                  size_t rounds) {
    for (size_t k = 0; k < rounds; k++)
        for (size_t i = 0; i < n; i++)
            api->record(state, &b[i]);
}

void table_pack(const lbrcore_api *api, lbr_state *state, void *component, size_t rounds) {
    for (size_t k = 0; k < rounds; k++)
        api->pack(state, component, 808);
}

void table_unpack(const lbrcore_api *api, lbr_state *state, const void *component,
                  size_t rounds) {
    for (size_t k = 0; k < rounds; k++)
        api->unpack(state, component, 808);
}

void copy_808(char *to, const char *from, size_t rounds) {
    for (size_t k = 0; k < rounds; k++) {
        memcpy(to, from, 808);
        __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
    }
}

/* A state through the table, with every architectural feature. */
lbr_state *create(const lbrcore_api *api, uint64_t ctl) {
    lbr_config config = {.flavour = LBR_ARCHITECTURAL, .depth_bitmap = 15, .linear_width = 48,
                         .ctl_mask = 0x7F000F, .info_mask = 0xFF0000000000FFFFull};
    lbr_state *state = api->create(&config);
    if (state)
        api->write_ctl(state, ctl);
    return state;
}
