/* Random use of liblbrcore inside one process: what holds for every input is looked at after each.
 *
 *     library TARGET SEED COUNT [THREADS [CHUNK]]
 *
 * Case n of a seed is a function of both alone; the digest is the same at every number of threads.
 * Prints "executions refused digest", or the case and what was wrong, and exits with 1. */
#include <lbrcore_cpu.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPERATIONS = 64, MODELS = 64, BATCH = 32, THREADS = 64, AREA = 4096 };

typedef struct worker {
    pthread_t thread;
    uint64_t seed, first, count, step; /* cases first, first + step, ... */
    uint64_t random, executions, refused, digest;
    size_t chunk;
    const char *wrong;
    uint64_t wrong_case;
} worker;

/* ------------------------------------------------------------ random values */

static uint64_t draw(worker *w) { /* splitmix64 */
    uint64_t z = (w->random += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static uint64_t mixed(uint64_t digest, uint64_t value) {
    digest = (digest ^ value) * 0xFF51AFD7ED558CCDull;
    return digest ^ (digest >> 32);
}

static uint64_t digest_of(const void *data, size_t size) {
    uint64_t digest = size, word = 0;
    const uint8_t *at = data;
    for (; size >= 8; size -= 8, at += 8) {
        memcpy(&word, at, 8);
        digest = mixed(digest, word);
    }
    word = 0;
    memcpy(&word, at, size);
    return mixed(digest, word);
}

/* Values near the borders of what registers take. */
static uint64_t value(worker *w) {
    uint64_t r = draw(w), bit = 1ull << (r >> 58);
    switch (r & 7) {
    case 0: return 0;
    case 1: return bit;
    case 2: return bit - 1;
    case 3: return ~bit;
    case 4: return 0x7F0001 | (r >> 8 & 0xE);           /* LBR_CTL with filters */
    case 5: return (uint64_t)((int64_t)(r << 16) >> 16); /* canonical */
    case 6: return r >> 8 & 0x1FF;
    default: return draw(w);
    }
}

static uint32_t number(worker *w) {
    static const uint32_t often[] = {0x1D9, 0x14CE, 0x14CF, 0x1C8, 0x1C9, 0x38F, 0x38D, 0x186, 0xC1,
                                     0x1DD, 0x1DE, 0x1E0, 0x680, 0x6C0, 0xDC0, 0x1500, 0x1600,
                                     0x1200, 0x38E, 0x390, 0x391, 0x345, 0xDA0, 0x600, 0x570,
                                     0xC000010E, 0xC000010F, 0xC0010300, 0xC0010301, 0xC0010200};
    uint64_t r = draw(w);
    if ((r & 31) == 0)
        return (uint32_t)(r >> 32);
    return often[(r >> 8) % (sizeof often / sizeof *often)] + ((r & 32) ? (r >> 48 & 31) : 0);
}

static void branch(worker *w, lbr_branch *b) {
    uint64_t r = draw(w);
    memset(b, 0, sizeof *b);
    b->from = 0x400000 + (r & 0xFFFF);
    b->to = r & 0x100000 ? 0xFFFFFFFF81000000ull + (r >> 40 & 0xFFF) : 0x400000 + (r >> 24 & 0xFFFF);
    if ((r >> 48 & 31) == 0)
        b->to = draw(w); /* not canonical */
    b->cycles = (r >> 16 & 3) ? (uint32_t)(r >> 50 & 63) : (uint32_t)draw(w);
    b->instructions = 1 + (r >> 20 & 15);
    b->cls = r >> 56 & 15;
    b->flags = (r >> 52 & 7) == 0 ? r >> 60 & 7 : 0;
    b->cpl_from = (r >> 44 & 7) ? 3 : r >> 47 & 3;
    b->cpl_to = (r >> 41 & 7) ? 3 : r >> 37 & 3;
    b->events[r >> 34 & 3] = r >> 32 & 3;
    if ((r >> 20 & 0x3FF) == 0)
        b->cls = (uint8_t)draw(w); /* refused */
}

/* A processor of each model, which all threads copy. */
static lbr_cpu *fresh[MODELS];
static size_t models;

static lbr_cpu *new_cpu(size_t model) {
    lbr_cpu *cpu = NULL;
    if (lbr_cpu_new(&cpu, lbr_model_at(model)->name) != LBR_OK)
        abort();
    return cpu;
}

static lbr_cpu *copy_of(const lbr_cpu *cpu) {
    lbr_cpu *made = malloc(sizeof *made);
    if (made == NULL || lbr_cpu_copy(made, cpu) != LBR_OK)
        abort();
    return made;
}

/* ------------------------------------------------------------ events */

static int event(worker *w, lbr_cpu *cpu, uint64_t what, uint64_t a, uint32_t index) {
    uint64_t out = 0;
    uint32_t registers[4];
    int result = LBR_OK;
    (void)w;
    switch (what % 20) {
    default: return lbr_wrmsr(cpu, index, a, NULL);
    case 6: result = lbr_rdmsr(cpu, index, &out, NULL); break;
    case 7: return lbr_host_wrmsr(cpu, index, a, NULL);
    case 8: result = lbr_host_rdmsr(cpu, index, &out, NULL); break;
    case 9: return lbr_cpu_retire(cpu, (uint32_t)a & 0xFFFF, (uint32_t)(a >> 16) & 0xFFFF, a >> 60 & 3);
    case 10: return lbr_cpu_debug_exception(cpu);
    case 11: return a & 1 ? lbr_cpu_smi(cpu) : lbr_cpu_rsm(cpu);
    case 12: return a & 8 ? lbr_cpu_init(cpu) : a & 16 ? lbr_cpu_reset(cpu, a & 1, a >> 1 & 1) : LBR_OK;
    case 13: return lbr_cpu_mwait(cpu, a & 1, a >> 1 & 1);
    case 14: return a & 1 ? lbr_cpu_enclave_enter(cpu, a, a >> 1 & 1) : lbr_cpu_enclave_leave(cpu, &out);
    case 15: return lbr_cpu_set_mode(cpu, a & 1, a & 0xFFFF0);
    case 16: return lbr_cpu_set_tsx(cpu, a & 1);
    case 17: return lbr_cpu_raise_pmi(cpu);
    case 18: return lbr_xsetbv(cpu, a, NULL);
    case 19: result = lbr_cpuid(cpu, (uint32_t)index & 0x3F, (uint32_t)a & 3, registers); break;
    }
    return result;
}

static void any_event(worker *w, lbr_cpu *cpu) {
    uint64_t what = draw(w), a = value(w); /* in this order with every compiler */
    event(w, cpu, what, a, number(w));
}

static const char *saved(const lbr_cpu *cpu, uint8_t *data, size_t *used) {
    *used = 0;
    return lbr_cpu_save(cpu, data, LBR_STATE_MAX, used) == LBR_OK ? NULL : "a state is not saved";
}

/* One batch beside its branches one by one: a PMI ends it, an invalid branch refuses all of it. */
static const char *batch(worker *w, lbr_cpu *cpu, lbr_cpu *single, lbr_cpu *before) {
    lbr_branch branches[BATCH];
    size_t count = 1 + draw(w) % BATCH, taken = 0, i;
    int result, one = LBR_OK, valid = 1;
    for (i = 0; i < count; i++) {
        branch(w, &branches[i]);
        valid &= branches[i].cls < 16;
    }
    lbr_cpu_copy(before, cpu);
    result = lbr_cpu_record(cpu, branches, count, &taken);
    w->executions++;
    w->refused += result < 0;
    if (!valid)
        return result == LBR_EINVAL && taken == 0 && memcmp(before, cpu, sizeof *cpu) == 0
                   ? NULL : "a batch with an invalid branch is not refused as a whole";
    for (i = 0; i < count && one == LBR_OK; i++)
        one = lbr_cpu_branch(single, &branches[i]);
    if (result != one)
        return "a batch ends otherwise than its branches";
    return taken == i ? NULL : "a batch takes another number of branches";
}

static const char *same(const lbr_cpu *a, const lbr_cpu *b, uint64_t *digest) {
    uint8_t one[LBR_STATE_MAX], two[LBR_STATE_MAX];
    size_t first = 0, second = 0;
    const char *wrong = saved(a, one, &first);
    wrong = wrong ? wrong : saved(b, two, &second);
    if (wrong == NULL && (first != second || memcmp(one, two, first) != 0))
        wrong = "two processors that did the same differ";
    *digest = mixed(*digest, digest_of(one, first));
    return wrong;
}

/* MSRs, events and batches on two processors; a refused access changes nothing.  With `migrate`
 * the second one is saved, and loaded into a new one, after each of them. */
static const char *sequence(worker *w, int migrate) {
    size_t model = draw(w) % models;
    lbr_cpu *cpu = copy_of(fresh[model]), *other = copy_of(cpu), *before = copy_of(cpu);
    const char *wrong = NULL;
    for (int i = 0; i < OPERATIONS && wrong == NULL; i++) {
        uint64_t what = draw(w), a = value(w);
        uint32_t index = number(w);
        if (what >> 60 < 5) {
            wrong = batch(w, cpu, other, before);
        } else {
            lbr_cpu_copy(before, cpu);
            int result = event(w, cpu, what, a, index);
            w->executions++;
            w->refused += result < 0;
            if (result < 0 && memcmp(before, cpu, sizeof *cpu) != 0)
                wrong = "a refused access changed the processor";
            if (event(w, other, what, a, index) != result)
                wrong = "two processors answer differently";
        }
        if (migrate && wrong == NULL) {
            uint8_t data[LBR_STATE_MAX];
            size_t used;
            wrong = saved(other, data, &used);
            lbr_cpu_copy(other, fresh[model]);
            if (wrong == NULL && lbr_cpu_load(other, data, used) != LBR_OK)
                wrong = "a saved state is refused";
            wrong = wrong ? wrong : same(cpu, other, &w->digest);
        }
    }
    uint64_t digest = 0;
    wrong = wrong ? wrong : same(cpu, other, &digest);
    w->digest += digest;
    free(cpu);
    free(other);
    free(before);
    return wrong;
}

static const char *events(worker *w) { return sequence(w, 0); }
static const char *migration(worker *w) { return sequence(w, 1); }

/* ------------------------------------------------------------ XSAVES images */

static uint64_t shown(const lbr_cpu *cpu) {
    static const uint32_t registers[] = {0x14CE, 0x14CF, 0x1DD, 0x1DE, 0x1E0};
    lbr_entry entries[32];
    uint64_t out, digest = digest_of(entries, lbr_cpu_records(cpu, entries) * sizeof *entries);
    for (size_t i = 0; i < sizeof registers / sizeof *registers; i++)
        digest = mixed(digest, lbr_rdmsr(cpu, registers[i], &out, NULL) == LBR_OK ? out : ~0ull);
    return digest;
}

static const char *image(worker *w) {
    static const size_t fields[] = {512, 520, 528, 536, 576, 584, 592, 600, 608, 616, 624, 632};
    size_t model = draw(w) % 4; /* those with LBRs in XSAVE lead the list */
    lbr_cpu *cpu = copy_of(fresh[model]), *before = copy_of(cpu);
    union { uint64_t aligned[AREA / 8]; uint8_t bytes[AREA]; } area;
    const char *wrong = NULL;
    const uint64_t bit = 1ull << 15;
    memset(&area, 0, sizeof area);
    lbr_wrmsr(cpu, 0xDA0, bit, NULL);
    lbr_wrmsr(cpu, 0x14CF, 8 + 8 * (draw(w) & 3), NULL);
    lbr_wrmsr(cpu, 0x14CE, 0x7F0007 | (draw(w) & 8), NULL);
    for (int i = draw(w) & 15; i > 0; i--) {
        lbr_branch b;
        branch(w, &b);
        lbr_cpu_branch(cpu, &b);
    }
    if (lbr_cpu_xsaves(cpu, &area, sizeof area, 0x10000, bit, ~0ull) != LBR_OK)
        wrong = "XSAVES is refused";
    lbr_entry entries[32]; /* after CTL, DEPTH and LER */
    uint32_t depth = lbr_cpu_records(cpu, entries);
    if (wrong == NULL && memcmp(area.bytes + 616, entries, depth * sizeof *entries) != 0)
        wrong = "the image has other records than RDMSR";
    for (int round = 0; round < 8 && wrong == NULL; round++) {
        uint64_t r = draw(w), address = (r & 15) ? 0x10000 : value(w);
        size_t at = (r & 64) ? fields[r >> 8 & 7] + (r >> 11 & 8 ? 8 : 0) : 512 + (r >> 16) % 900;
        uint64_t kept = area.aligned[at / 8];
        size_t size = (r >> 4 & 3) ? sizeof area : (r >> 32) % sizeof area;
        if (round)
            area.aligned[at / 8] = (r & 128) ? kept ^ 1ull << (r >> 58) : value(w);
        lbr_cpu_copy(before, cpu);
        int result = lbr_cpu_xrstors(cpu, &area, size, address, (r & 256) ? bit : value(w));
        w->executions++;
        w->refused += result < 0;
        if (result < 0 && memcmp(before, cpu, sizeof *cpu) != 0)
            wrong = "a refused image changed the processor";
        if (round == 0 && result == LBR_OK && shown(before) != shown(cpu))
            wrong = "XRSTORS of what XSAVES gave changes what is shown";
        if (result == LBR_OK) { /* what was taken in can be given out, and taken in again */
            union { uint64_t aligned[AREA / 8]; uint8_t bytes[AREA]; } again;
            memset(&again, 0, sizeof again);
            lbr_cpu_copy(before, cpu);
            if (lbr_cpu_xsaves(cpu, &again, sizeof again, 0x10000, bit, ~0ull) != LBR_OK ||
                lbr_cpu_xrstors(cpu, &again, sizeof again, 0x10000, bit) != LBR_OK)
                wrong = "what XRSTORS took in does not come back";
            if (wrong == NULL && shown(before) != shown(cpu))
                wrong = "what XRSTORS took in comes back otherwise";
            w->digest += shown(cpu);
        }
        if (r & 1)
            area.aligned[at / 8] = kept;
    }
    free(cpu);
    free(before);
    return wrong;
}

/* ------------------------------------------------------------ saved states */

static uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = ~0u;
    while (size--) {
        crc ^= *data++;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
    }
    return ~crc;
}

static const char *state(worker *w) {
    lbr_cpu *cpu = copy_of(fresh[draw(w) % models]), *before = copy_of(cpu);
    uint8_t data[LBR_STATE_MAX], changed[LBR_STATE_MAX], again[LBR_STATE_MAX];
    size_t used, size, back;
    for (int i = 0; i < OPERATIONS / 4; i++)
        any_event(w, cpu);
    const char *wrong = saved(cpu, data, &used);
    for (int round = 0; round < 8 && wrong == NULL; round++) {
        memcpy(changed, data, used);
        for (int i = 1 + (int)(draw(w) & 3); i > 0; i--) {
            uint64_t r = draw(w), v = value(w);
            size_t width = 1u << (r & 3), at = 24 + (r >> 8) % (used - 32);
            memcpy(changed + at, &v, width);
        }
        size = draw(w) % 16 ? used : draw(w) % (used + 1);
        if (size > 24 && draw(w) % 16) {
            uint32_t crc = crc32_of(changed + 24, size - 24), length = (uint32_t)(size - 24);
            memcpy(changed + 16, &crc, 4);
            memcpy(changed + 12, &length, 4);
        }
        lbr_cpu_copy(before, cpu);
        int result = lbr_cpu_load(cpu, changed, size);
        w->executions++;
        w->refused += result < 0;
        if (result < 0 && memcmp(before, cpu, sizeof *cpu) != 0)
            wrong = "a refused state changed the processor";
        if (result == LBR_OK) {
            wrong = saved(cpu, again, &back); /* what is saved then is loaded and saved as it is */
            if (wrong == NULL && lbr_cpu_load(cpu, again, back) != LBR_OK)
                wrong = "a saved state is refused";
            wrong = wrong ? wrong : saved(cpu, changed, &size);
            if (wrong == NULL && (back != size || memcmp(again, changed, back) != 0))
                wrong = "a saved state is saved otherwise";
            for (int i = 0; i < 4; i++) /* it runs */
                any_event(w, cpu);
        }
    }
    if (wrong == NULL) {
        wrong = saved(cpu, again, &back);
        w->digest += digest_of(again, back);
    }
    free(cpu);
    free(before);
    return wrong;
}

/* ------------------------------------------------------------ by kind */

static lbr_state *facility(uint64_t r) {
    lbr_config config = {.flavour = LBR_ARCHITECTURAL, .depth_bitmap = 15, .linear_width = 48,
                         .ctl_mask = 0x7F000F, .info_mask = r & 1 ? 0xFF0000000000FFFFull : 0xFFFF,
                         .event_counters = r & 2 ? 15 : 0};
    lbr_state *state = NULL;
    if (lbr_new(&state, &config) != LBR_OK || lbr_write_depth(state, 8 + 8 * (r >> 2 & 3)) != LBR_OK)
        abort();
    return state;
}

/* The same branches to two facilities: as structures, and by kind in one of three ways. */
static const char *kinds(worker *w) {
    uint64_t r = draw(w);
    lbr_state *plain = facility(r), *other = facility(r);
    lbr_entry one[32], two[32];
    const char *wrong = NULL;
    for (int i = 0; i < OPERATIONS / 4 && wrong == NULL; i++) {
        uint64_t from[BATCH], to[BATCH], kind[BATCH], held, way = draw(w), ctl = value(w);
        uint32_t cycles[BATCH];
        size_t count = 1 + draw(w) % BATCH;
        int valid = 1, result = LBR_OK;
        if (way & 8 && lbr_write_ctl(plain, ctl) != lbr_write_ctl(other, ctl))
            wrong = "two facilities take different values";
        if (way & 16)
            lbr_set_frozen(plain, way >> 5 & 1), lbr_set_frozen(other, way >> 5 & 1);
        for (size_t k = 0; k < count; k++) {
            lbr_branch b;
            branch(w, &b);
            memset(b.events, 0, sizeof b.events);
            from[k] = b.from, to[k] = b.to, cycles[k] = b.cycles;
            kind[k] = lbr_kind(b.cls, b.flags, b.cpl_from, b.cpl_to);
            valid &= b.cls < 16;
            if ((way & 3) != 2 || valid) /* together: all or nothing */
                lbr_record(plain, &b);
        }
        if ((way & 3) == 2 && !valid)
            lbr_copy(plain, other);
        switch (way & 3) {
        case 0:
        case 1:
            for (size_t k = 0; k < count; k++)
                result |= lbr_record_kind(other, from[k], to[k], cycles[k], kind[k]);
            break;
        case 2: result = lbr_record_kinds(other, from, to, cycles, kind, count); break;
        case 3:
            held = lbr_hold(other);
            for (size_t k = 0; k < count; k++)
                held = lbr_record_held(other, held, from[k], to[k], cycles[k], kind[k]);
            result = lbr_release(other, held);
        }
        w->executions++;
        w->refused += result < 0;
        if (wrong == NULL && (result < 0) == valid)
            wrong = "kinds are refused otherwise than branches";
        uint32_t depth = lbr_read_records(plain, one);
        if (wrong == NULL && (lbr_read_records(other, two) != depth ||
                              memcmp(one, two, depth * sizeof *one) != 0))
            wrong = "kinds are recorded otherwise than branches";
        w->digest += digest_of(one, depth * sizeof *one);
    }
    lbr_destroy(plain);
    lbr_destroy(other);
    return wrong;
}

/* ------------------------------------------------------------ one long replay */

/* `count` branches in chunks, counted by a counter that raises PMIs; at each PMI, and at the end,
 * the records go into the digest.  The processor is saved and loaded now and then. */
static const char *replay(worker *w) {
    lbr_cpu *cpu = new_cpu(0);
    lbr_branch *branches = malloc(w->chunk * sizeof *branches);
    lbr_entry entries[32];
    uint64_t done = 0, pmis = 0;
    if (branches == NULL)
        abort();
    lbr_wrmsr(cpu, 0x14CE, 0x7F0007, NULL);
    lbr_wrmsr(cpu, 0x1D9, 1u << 11, NULL);              /* freeze LBRs on PMI */
    lbr_wrmsr(cpu, 0x186, 0x5300C4, NULL);              /* branch instructions, INT, USR and OS */
    lbr_wrmsr(cpu, 0xC1, 0xFFFFFFFFFFFFull & -100003ll, NULL);
    lbr_wrmsr(cpu, 0x38F, 1, NULL);
    for (uint64_t at = 0; at < w->count;) {
        size_t size = w->chunk < w->count - at ? w->chunk : (size_t)(w->count - at), taken;
        for (size_t i = 0; i < size; i++) {
            w->random = (w->seed << 40) + (at + i) * 0x9E3779B97F4A7C15ull;
            branch(w, &branches[i]);
            branches[i].cls &= 15;
        }
        for (size_t i = 0; i < size; i += taken) {
            int result = lbr_cpu_record(cpu, branches + i, size - i, &taken);
            if (result < 0)
                return "a branch is refused";
            if (result != LBR_PMI)
                continue;
            uint32_t depth = lbr_cpu_records(cpu, entries);
            w->digest = mixed(w->digest, digest_of(entries, depth * sizeof *entries));
            lbr_wrmsr(cpu, 0xC1, 0xFFFFFFFFFFFFull & -100003ll, NULL);
            lbr_wrmsr(cpu, 0x390, ~0ull & (1ull | 1ull << 58), NULL);
            pmis++;
            uint8_t data[LBR_STATE_MAX];
            size_t used;
            if (pmis % 7 == 0) {
                lbr_cpu_save(cpu, data, sizeof data, &used);
                free(cpu);
                cpu = NULL;
                if (lbr_cpu_new(&cpu, "sapphire-rapids") || lbr_cpu_load(cpu, data, used))
                    return "a saved state is refused";
            }
        }
        at += size;
        done += size;
    }
    uint32_t depth = lbr_cpu_records(cpu, entries);
    w->digest = mixed(mixed(w->digest, digest_of(entries, depth * sizeof *entries)), pmis);
    w->executions = done;
    free(branches);
    lbr_cpu_destroy(cpu);
    return pmis || w->count < 1000000 ? NULL : "no PMI came";
}

/* ------------------------------------------------------------ work */

static const struct target {
    const char *name;
    const char *(*run)(worker *);
} targets[] = {{"events", events}, {"migration", migration}, {"image", image}, {"state", state},
               {"kinds", kinds}, {"replay", replay}};
static const struct target *chosen;

static void *work(void *given) {
    worker *w = given;
    if (chosen->run == replay) {
        w->wrong = replay(w);
        return NULL;
    }
    for (uint64_t n = w->first; n < w->count && w->wrong == NULL; n += w->step) {
        uint64_t before = w->digest;
        w->random = mixed(w->seed, n + 1);
        w->digest = 0;
        w->wrong = chosen->run(w);
        w->wrong_case = n;
        w->digest = before + mixed(w->digest, n);
    }
    return NULL;
}

int main(int argc, char **argv) {
    worker workers[THREADS] = {{0}};
    uint64_t executions = 0, refused = 0, digest = 0;
    for (size_t i = 0; argc >= 4 && i < sizeof targets / sizeof *targets; i++)
        if (strcmp(argv[1], targets[i].name) == 0)
            chosen = &targets[i];
    size_t threads = argc > 4 ? strtoul(argv[4], NULL, 0) : 1;
    if (chosen == NULL || threads == 0 || threads > THREADS) {
        fprintf(stderr, "usage: library TARGET SEED COUNT [THREADS [CHUNK]]\n");
        return 2;
    }
    for (; models < MODELS && lbr_model_at(models) != NULL; models++)
        fresh[models] = new_cpu(models);
    for (size_t i = 0; i < threads; i++) {
        worker *w = &workers[i];
        w->seed = strtoull(argv[2], NULL, 0);
        w->count = strtoull(argv[3], NULL, 0);
        w->first = i;
        w->step = threads;
        w->chunk = argc > 5 ? strtoul(argv[5], NULL, 0) : 4096;
        if (pthread_create(&w->thread, NULL, work, w) != 0)
            abort();
    }
    for (size_t i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].wrong != NULL) {
            printf("%s, seed %s, case %llu: %s\n", chosen->name, argv[2],
                   (unsigned long long)workers[i].wrong_case, workers[i].wrong);
            return 1;
        }
        executions += workers[i].executions;
        refused += workers[i].refused;
        digest += workers[i].digest; /* replay: the same in each thread, so times their number */
    }
    if (chosen->run == replay) {
        for (size_t i = 1; i < threads; i++)
            if (workers[i].digest != workers[0].digest) {
                printf("replay, seed %s: two threads differ\n", argv[2]);
                return 1;
            }
        digest = workers[0].digest;
    }
    for (size_t i = 0; i < models; i++)
        lbr_cpu_destroy(fresh[i]);
    printf("%llu %llu %016llx\n", (unsigned long long)executions, (unsigned long long)refused,
           (unsigned long long)digest);
    return 0;
}
