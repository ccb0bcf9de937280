/* The walk of a reader through the graph of a .lbrt file, and the streams that it reads.
 *
 * docs/trace-format.md specifies it, lbrt_reference.py is the plain twin.
 *
 * Each step waits for the loads of the step before, so that three things make it fast: what the
 * next step needs lies in one arc of 32 bytes; what a state learns is looked up; and a way is
 * taken by a jump, so that the processor goes ahead on its own guess of it.
 */
#ifndef PYLBR_TRACE_WALK_H
#define PYLBR_TRACE_WALK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    TWO_ODDS = 96, /* contexts of guesses at nodes with two ways; those of the others follow */
    OTHER_ODDS = 171,
    ODDS = 186,
    NODE_SURE = 96, /* a two-way node's state that is not asked about any more */
    PATH_SURE = 8,  /* the same of a path to a two-way node */
    MANY_SURE = 5,  /* the same of a path to a node with more ways */
    NEAR_MOST = 14,
    PATH_BITS = 13,
    MANY_BITS = 12,
    VARINTS = -1, /* in place of the bits of a run that are kept as they are */
};

enum { OK, BAD_RUNS, BAD_GUESSES, BAD_RANKS, BAD_NODE };

#define PRIME_P 0x9E3779B97F4A7C15u
#define PRIME_Q 0xD6E8FEB86659FD93u

/* A row of 32 bytes, as four words. */
typedef struct {
    uint64_t word[4];
} walk_row;

typedef struct {
    uint64_t mix;
    uint64_t key;   /* of the node at the end */
    uint32_t chain; /* where its rows begin */
    uint32_t next;  /* node at their end */
    uint32_t base;  /* first way of that */
    uint32_t length;
} arc;

typedef struct {
    uint8_t tag;
    int8_t state;
} path_entry;

typedef struct {
    uint32_t rank;
    uint8_t tag;
    uint8_t state;
} many_entry;

/* Where a task is. */
typedef struct {
    uint64_t near;
    uint64_t far;
    uint32_t node;
} context;

typedef struct {
    const uint8_t *runs;
    const uint8_t *guesses;
    const uint8_t *ranks;
    size_t run_bytes, guess_bytes, rank_bytes;
    size_t run_at, guess_at, rank_at; /* run_at in bits, unless the runs are varints */
    uint64_t run;
    uint32_t low, high, code;
    int rest;  /* VARINTS, or how many bits of a run are kept as they are */
    int speed; /* of the odds */
    uint16_t odds[ODDS];
} streams;

/* The graph, and what guesses have learned. */
typedef struct {
    const walk_row *chains;
    const uint32_t *numbers;
    const uint32_t *target;
    const arc *arcs;
    const uint32_t *first;
    const uint32_t *ways;
    int8_t *node_state;
    uint32_t *rank_state;
    path_entry *paths;
    many_entry *far_many;
    many_entry *near_many;
} walk_graph;

/* What a state becomes; the context of a guess by the states of path and node. */
static int8_t node_learned[2][256], path_learned[2][256];
static uint8_t two_contexts[2 * PATH_SURE + 1][256];

static int8_t learned(int state, int taken, int most)
{
    if (taken)
        return (int8_t)(state < 0 ? -(-state >> 1) : state < most ? state + 1 : most);
    return (int8_t)(state > 0 ? state >> 1 : state > -most ? state - 1 : -most);
}

static void walk_tables(void)
{
    for (int state = -128; state < 128; state++) {
        int size = state < 0 ? -state : state;
        int bucket = (size >= 1) + (size >= 3) + (size >= 8) + (size >= 24) + (size >= 48);
        for (int taken = 0; taken < 2; taken++) {
            node_learned[taken][(uint8_t)state] = learned(state, taken, NODE_SURE);
            path_learned[taken][(uint8_t)state] = learned(state, taken, PATH_SURE);
        }
        for (int path = -PATH_SURE; path <= PATH_SURE; path++)
            two_contexts[path + PATH_SURE][(uint8_t)state] =
                (uint8_t)(((path < 0 ? -path : path) * 6 + bucket) * 2 + (path * state > 0));
    }
}

static inline uint64_t mixed(uint64_t x)
{
    x *= PRIME_P;
    x ^= x >> 32;
    x *= PRIME_Q;
    return x ^ (x >> 29);
}

/* What a path to a node with many ways has learned. */
static inline void learn_many(many_entry *entry, uint8_t tag, uint32_t rank, int most)
{
    if (entry->tag != tag || !entry->state || (entry->rank != rank && entry->state <= 2)) {
        entry->rank = rank;
        entry->state = 1;
    } else if (entry->rank != rank) {
        entry->state >>= 1;
    } else if (entry->state < most) {
        entry->state++;
    }
    entry->tag = tag;
}

/* A varint; 0 past the end, or if it does not fit 64 bits. */
static inline int walk_number(const uint8_t *data, size_t size, size_t *at, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; *at < size && shift < 64; shift += 7) {
        uint8_t byte = data[(*at)++];
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return 1;
    }
    return 0;
}

/* The next run, a number of guesses that are certain and right; 0 past the end. */
static __attribute__((noinline)) int next_run(streams *s)
{
    size_t end = s->run_bytes * 8;
    if (s->rest == VARINTS)
        return walk_number(s->runs, s->run_bytes, &s->run_at, &s->run);
    uint64_t run = 0;
    for (;; run++) {
        if (s->run_at >= end)
            return 0;
        int bit = s->runs[s->run_at >> 3] >> (s->run_at & 7) & 1;
        s->run_at++;
        if (!bit)
            break;
    }
    if (s->run_at + (size_t)s->rest > end)
        return 0;
    uint64_t rest = 0;
    for (int i = 0; i < s->rest; i++, s->run_at++)
        rest |= (uint64_t)(s->runs[s->run_at >> 3] >> (s->run_at & 7) & 1) << i;
    s->run = run << s->rest | rest;
    return 1;
}

/* Runs as bits; returns their bytes.  `out` has room for one bit per guess and one per run. */
static size_t pack_runs(const uint32_t *runs, size_t count, uint8_t *out)
{
    int best = 0;
    uint64_t least = UINT64_MAX;
    for (int rest = 0; rest < 16; rest++) {
        uint64_t bits = 0;
        for (size_t i = 0; i < count; i++)
            bits += (runs[i] >> rest) + 1 + (uint64_t)rest;
        if (bits < least) {
            least = bits;
            best = rest;
        }
    }
    memset(out, 0, (size_t)(least + 7) / 8 + 1);
    out[0] = (uint8_t)best;
    size_t at = 8;
    for (size_t i = 0; i < count; i++) {
        for (uint32_t k = runs[i] >> best; k; k--, at++)
            out[at >> 3] |= (uint8_t)(1 << (at & 7));
        at++;
        for (int k = 0; k < best; k++, at++)
            out[at >> 3] |= (uint8_t)((runs[i] >> k & 1) << (at & 7));
    }
    return (at + 7) / 8;
}

static inline uint8_t guess_byte(streams *s)
{
    size_t at = s->guess_at++;
    return at < s->guess_bytes ? s->guesses[at] : 0; /* zeros follow the last */
}

/* Take the part of the range that a guess leaves, and learn how often such guesses miss. */
static inline void narrow(streams *s, int context, uint32_t middle, int missed)
{
    uint32_t odds = s->odds[context];
    if (missed) {
        s->high = middle;
        s->odds[context] = (uint16_t)(odds + ((65535 - odds) >> s->speed));
    } else {
        odds -= odds >> s->speed;
        s->low = middle + 1;
        s->odds[context] = (uint16_t)(odds < 64 ? 64 : odds);
    }
}

static inline uint32_t middle_of(const streams *s, int context)
{
    return s->low + ((s->high - s->low) >> 16) * s->odds[context];
}

/* 1 if the next guess is wrong, 0 if it is right. */
static inline int missed_guess(streams *s, int context)
{
    uint32_t middle = middle_of(s, context);
    int missed = s->code <= middle;
    narrow(s, context, middle, missed);
    while (__builtin_expect(!((s->low ^ s->high) >> 24), 0)) {
        s->low <<= 8;
        s->high = s->high << 8 | 255;
        s->code = s->code << 8 | guess_byte(s);
    }
    return missed;
}

/* Begin to read: the first run, the first guesses. */
static int begin_reading(streams *s)
{
    if (s->rest != VARINTS) {
        s->rest = s->run_bytes ? s->runs[0] : 16;
        s->run_at = 8;
        if (s->rest > 15)
            return BAD_RUNS;
    }
    s->low = 0;
    s->high = 0xFFFFFFFFu;
    s->code = 0;
    for (int i = 0; i < 4; i++)
        s->code = s->code << 8 | guess_byte(s);
    return next_run(s) ? OK : BAD_RUNS;
}

/* Whether there is nothing more than what was read. */
static int read_to_the_end(const streams *s)
{
    size_t runs = s->rest == VARINTS ? s->run_at : (s->run_at + 7) / 8;
    int bits = s->rest == VARINTS || !(s->run_at & 7) || !(s->runs[runs - 1] >> (s->run_at & 7));
    return !s->run && runs == s->run_bytes && bits && s->rank_at == s->rank_bytes
        && s->guess_at == (s->guess_bytes ? s->guess_bytes + 3 : 4);
}

/* The way out of a node with more than two; a negative trouble. */
static __attribute__((noinline)) int64_t many_ways(const walk_graph *g, streams *s, uint32_t node,
                                                   uint64_t near, uint64_t far)
{
    uint64_t key = node * (uint64_t)PRIME_Q;
    uint64_t hashed = (far ^ key) * PRIME_P, nearer = (near ^ key) * PRIME_P;
    many_entry *f = &g->far_many[hashed >> (64 - MANY_BITS)];
    many_entry *n = &g->near_many[nearer >> (64 - MANY_BITS)];
    uint8_t f_tag = (uint8_t)(hashed >> 32), n_tag = (uint8_t)(nearer >> 32);
    int f_state = f->tag == f_tag ? f->state : 0, n_state = n->tag == n_tag ? n->state : 0;
    uint32_t last = g->rank_state[node];
    uint32_t guess = f_state ? f->rank : n_state ? n->rank : last;
    uint32_t other = f_state && n_state && n->rank != guess ? n->rank : last;
    uint32_t rank = guess;
    uint64_t value;
    int missed = 1;
    if (f_state == MANY_SURE) {
        if (s->run) {
            s->run--;
            return guess < g->ways[node] ? (int64_t)guess : -BAD_RANKS;
        }
        if (!next_run(s))
            return -BAD_RUNS;
    } else {
        missed = missed_guess(s, TWO_ODDS + f_state * 15 + n_state);
    }
    if (missed) {
        rank = other;
        if (other == guess || missed_guess(s, OTHER_ODDS + n_state)) {
            if (!walk_number(s->ranks, s->rank_bytes, &s->rank_at, &value)
                || value >= g->ways[node])
                return -BAD_RANKS;
            rank = (uint32_t)value;
        }
    }
    if (rank >= g->ways[node])
        return -BAD_RANKS;
    learn_many(f, f_tag, rank, MANY_SURE);
    learn_many(n, n_tag, rank, NEAR_MOST);
    g->rank_state[node] = rank;
    return rank;
}

/* Rows of a chain, of which `skip` are not stored. */
static inline void put_chain(const walk_graph *g, const arc *a, size_t skip, walk_row *rows,
                             uint32_t *numbers)
{
    if (rows)
        memcpy(rows, &g->chains[a->chain + skip], (a->length - skip) * sizeof(walk_row));
    else
        memcpy(numbers, &g->numbers[a->chain + skip], (a->length - skip) * sizeof(uint32_t));
}

/* `count` rows of one task, stored from the one at `skip` on, into `rows` or `numbers`. */
static int walk_rows(const walk_graph *g, streams *from, context *c, walk_row *rows,
                     uint32_t *numbers, size_t count, size_t skip)
{
    streams s = *from;
    uint64_t near = c->near, far = c->far, key = c->node * (uint64_t)PRIME_Q;
    uint32_t node = c->node, base = g->first[node];
    const arc *a = NULL;
    size_t at = 0;
    while (at < count) {
        uint32_t ways = g->ways[node];
        if (ways == 2) {
            int8_t state = g->node_state[node];
            int path = NODE_SURE, taken;
            if (state == NODE_SURE || state == -NODE_SURE) {
                taken = state > 0;
                if (__builtin_expect(s.run != 0, 1)) {
                    s.run--;
                } else {
                    taken = !taken;
                    if (!next_run(&s))
                        return BAD_RUNS;
                    g->node_state[node] = node_learned[taken][(uint8_t)state];
                }
            } else {
                uint64_t hashed = (far ^ key) * PRIME_P;
                path_entry *entry = &g->paths[hashed >> (64 - PATH_BITS)];
                uint8_t tag = (uint8_t)(hashed >> 32);
                path = entry->tag == tag ? entry->state : 0;
                if (path == PATH_SURE || path == -PATH_SURE) {
                    taken = path > 0;
                    if (__builtin_expect(s.run != 0, 1)) {
                        s.run--;
                    } else {
                        taken = !taken;
                        if (!next_run(&s))
                            return BAD_RUNS;
                        entry->state = path_learned[taken][(uint8_t)path];
                    }
                } else {
                    taken = (path ? path : state) > 0;
                    taken ^= missed_guess(&s, two_contexts[path + PATH_SURE][(uint8_t)state]);
                    entry->tag = tag;
                    entry->state = path_learned[taken][(uint8_t)path];
                }
                g->node_state[node] = node_learned[taken][(uint8_t)state];
            }
            /* Two jumps, not one address: the processor need not wait for `taken`. */
            if (taken) {
                __asm__ volatile("");
                a = &g->arcs[base + 1];
            } else {
                __asm__ volatile("");
                a = &g->arcs[base];
            }
            if (path != NODE_SURE) {
                near = near << 32 ^ a->mix;
                far = far << 10 ^ a->mix;
            }
        } else if (ways > 2) {
            int64_t rank = many_ways(g, &s, node, near, far);
            if (rank < 0)
                return (int)-rank;
            a = &g->arcs[base + (uint32_t)rank];
            near = near << 32 ^ a->mix;
            far = far << 10 ^ a->mix;
        } else {
            if (ways == 0)
                return BAD_NODE;
            a = &g->arcs[base];
        }
        if (at < skip) {
            if (at + a->length > skip)
                put_chain(g, a, skip - at, rows, numbers);
        } else if (rows) {
            const walk_row *source = &g->chains[a->chain];
            walk_row *to = rows + (at - skip);
            to[0] = source[0];
            to[1] = source[1];
            for (uint32_t k = 2; __builtin_expect(k < a->length, 0); k++)
                to[k] = source[k];
        } else {
            put_chain(g, a, 0, NULL, numbers + (at - skip));
        }
        at += a->length;
        node = a->next;
        base = a->base;
        key = a->key;
    }
    if (s.guess_at > s.guess_bytes + 3 && s.guess_at > 4)
        return BAD_GUESSES;
    if (at > count)
        node = g->target[g->numbers[a->chain + a->length - 1 - (at - count)]];
    *c = (context){near, far, node};
    *from = s;
    return OK;
}

#endif
