/* perf.data in file mode: header, one attribute, its id, records, features.
 *
 * Numbers of perf_event.h and perf.data-file-format.txt; tests/core/test_library_perfdata.py holds
 * them equal to pylbr.perf.abi.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "lbrcore_perfdata.h"
#ifndef LBR_NO_FILES
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PERF_ATTR_BYTES = 128,  /* PERF_ATTR_SIZE_VER7 */
    PERF_HEADER_BYTES = 104,
    PERF_ID_AT = PERF_HEADER_BYTES + PERF_ATTR_BYTES + 16,
    PERF_DATA_AT = PERF_ID_AT + 8,
    PERF_STRING = 64,       /* strings of features are padded to a multiple of this */
    PERF_RECORD_COMM = 3,
    PERF_RECORD_SAMPLE = 9,
    PERF_RECORD_MMAP2 = 10,
    PERF_MISC_KERNEL = 1,
    PERF_MISC_USER = 2,
    PERF_MISC_COMM_EXEC = 1 << 13,
    PERF_SAMPLE_FIELDS = 0x987, /* IP, TID, TIME, CPU, PERIOD, BRANCH_STACK */
    PERF_ATTR_FLAGS = 0x1842300, /* mmap, comm, task, sample_id_all, mmap2, comm_exec */
    PERF_FEATURE_ARCH = 6,
    PERF_FEATURE_EVENT_DESC = 12,
    PERF_FEATURE_BRANCH_STACK = 15,
    PERF_FEATURE_CPU_PMU_CAPS = 28,
    PERF_RECORD_MOST = 8192,
    PERF_BRANCH_USER = 1,
    PERF_BRANCH_KERNEL = 2,
    PERF_BRANCH_HW_INDEX = 1 << 17,
    PERF_BRANCH_COUNTERS = 1 << 19,
    PERF_PROT_EXEC_READ = 5,
    PERF_MAP_PRIVATE = 2
};

struct lbr_perfdata {
    FILE *stream;
    uint64_t written; /* bytes of records */
    uint8_t attr[PERF_ATTR_BYTES];
    char event[64];
    char *path, *part; /* the file, and its name until it is whole */
    int failed, user_only, indexed, logged;
};

/* A record, or the header, under construction. */
typedef struct {
    uint8_t bytes[PERF_RECORD_MOST];
    size_t size;
} perf_bytes;

static void perf_put(perf_bytes *out, const void *data, size_t size) {
    memcpy(out->bytes + out->size, data, size);
    out->size += size;
}

static void perf_put32(perf_bytes *out, uint32_t value) { perf_put(out, &value, 4); }
static void perf_put64(perf_bytes *out, uint64_t value) { perf_put(out, &value, 8); }

/* Text with its NUL, padded to a multiple of `unit`. */
static void perf_put_text(perf_bytes *out, const char *text, size_t size, size_t unit) {
    perf_put(out, text, size);
    size_t zeros = unit - size % unit;
    memset(out->bytes + out->size, 0, zeros);
    out->size += zeros;
}

static void perf_begin(perf_bytes *out, uint32_t type, uint32_t misc) {
    out->size = 0;
    perf_put32(out, type);
    perf_put32(out, misc & 0xFFFF); /* the size comes into the upper half */
}

static int perf_write(lbr_perfdata *file, const void *data, size_t size) {
    if (!file->failed && fwrite(data, 1, size, file->stream) != size) file->failed = 1;
    return file->failed ? LBR_EIO : LBR_OK;
}

static int perf_record(lbr_perfdata *file, perf_bytes *out) {
    uint16_t size = (uint16_t)out->size;
    memcpy(out->bytes + 6, &size, 2);
    file->written += out->size;
    return perf_write(file, out->bytes, out->size);
}

/* The trailer of records that are no samples. */
static void perf_put_id(perf_bytes *out, uint32_t pid, uint32_t tid, uint64_t time) {
    perf_put32(out, pid);
    perf_put32(out, tid);
    perf_put64(out, time);
    perf_put64(out, 0); /* cpu */
}

static void perf_make_attr(lbr_perfdata *file, const lbr_perfdata_event *event) {
    perf_bytes out = {.size = 0};
    perf_put32(&out, event->type);
    perf_put32(&out, PERF_ATTR_BYTES);
    perf_put64(&out, event->config);
    perf_put64(&out, event->period);
    perf_put64(&out, PERF_SAMPLE_FIELDS);
    perf_put64(&out, 0); /* read_format */
    perf_put64(&out, PERF_ATTR_FLAGS);
    perf_put64(&out, 0); /* wakeup_events, bp_type */
    perf_put64(&out, 0); /* config1 */
    perf_put64(&out, 0); /* config2 */
    perf_put64(&out, event->branch_sample_type);
    memset(file->attr, 0, sizeof file->attr);
    memcpy(file->attr, out.bytes, out.size);
}

LBRCORE_PUBLIC void lbr_perfdata_discard(lbr_perfdata *file) {
    if (!file) return;
    if (file->stream) {
        fclose(file->stream);
        remove(file->part);
    }
    free(file->path);
    free(file->part);
    free(file);
}

LBRCORE_PUBLIC int lbr_perfdata_open(lbr_perfdata **file, const char *path,
                                     const lbr_perfdata_event *event) {
    static const uint8_t nothing[PERF_DATA_AT];
    if (!file || !path || !event || !event->name) return LBR_ENULL;
    *file = NULL;
    size_t length = strlen(path);
    lbr_perfdata *made = (lbr_perfdata *)calloc(1, sizeof *made);
    if (!made) return LBR_ENOMEM;
    made->path = (char *)malloc(length + 1);
    made->part = (char *)malloc(length + 6);
    if (!made->path || !made->part) {
        lbr_perfdata_discard(made);
        return LBR_ENOMEM;
    }
    memcpy(made->path, path, length + 1);
    memcpy(made->part, path, length);
    memcpy(made->part + length, ".part", 6);
    perf_make_attr(made, event);
    made->user_only = (event->branch_sample_type & (PERF_BRANCH_USER | PERF_BRANCH_KERNEL)) ==
                      PERF_BRANCH_USER;
    made->indexed = (event->branch_sample_type & PERF_BRANCH_HW_INDEX) != 0;
    made->logged = (event->branch_sample_type & PERF_BRANCH_COUNTERS) != 0;
    strncpy(made->event, event->name, sizeof made->event - 1);
    made->stream = fopen(made->part, "wb");
    if (!made->stream || perf_write(made, nothing, PERF_DATA_AT) != LBR_OK) {
        lbr_perfdata_discard(made);
        return LBR_EIO;
    }
    *file = made;
    return LBR_OK;
}

LBRCORE_PUBLIC int lbr_perfdata_comm(lbr_perfdata *file, uint32_t pid, uint32_t tid, uint64_t time,
                                     const char *name) {
    perf_bytes out;
    if (!file || !name) return LBR_ENULL;
    size_t size = strlen(name);
    perf_begin(&out, PERF_RECORD_COMM, PERF_MISC_COMM_EXEC);
    perf_put32(&out, pid);
    perf_put32(&out, tid);
    perf_put_text(&out, name, size < 15 ? size : 15, 8);
    perf_put_id(&out, pid, tid, time);
    return perf_record(file, &out);
}

LBRCORE_PUBLIC int lbr_perfdata_mmap(lbr_perfdata *file, uint32_t pid, uint32_t tid, uint64_t time,
                                     uint64_t start, uint64_t length, uint64_t offset,
                                     const char *path) {
    perf_bytes out;
    if (!file || !path) return LBR_ENULL;
    size_t size = strlen(path);
    if (size >= 4096) return LBR_EINVAL;
    perf_begin(&out, PERF_RECORD_MMAP2, PERF_MISC_USER);
    perf_put32(&out, pid);
    perf_put32(&out, tid);
    perf_put64(&out, start);
    perf_put64(&out, length);
    perf_put64(&out, offset);
    perf_put64(&out, 0); /* major, minor */
    perf_put64(&out, 0); /* inode */
    perf_put64(&out, 0); /* its generation */
    perf_put32(&out, PERF_PROT_EXEC_READ);
    perf_put32(&out, PERF_MAP_PRIVATE);
    perf_put_text(&out, path, size, 8);
    perf_put_id(&out, pid, tid, time);
    return perf_record(file, &out);
}

/* perf's PERF_BR_* of the codes of BR_TYPE that tell one. */
static uint64_t perf_branch_type(uint64_t info) {
    static const uint8_t types[6] = {1, 3, 2, 5, 4, 6};
    uint64_t code = info >> 56 & 15;
    return code < 6 ? types[code] : 0;
}

/* The third word of a branch entry. */
static uint64_t perf_flags(uint64_t info) {
    uint64_t flags = 2 - (info >> 63); /* mispredicted 1, predicted 2 */
    flags |= (info >> 60 & 4) | (info >> 58 & 8);
    if (info >> 60 & 1) flags |= (info & 0xFFFF) << 4;
    return flags | perf_branch_type(info) << 20;
}

LBRCORE_PUBLIC int lbr_perfdata_sample(lbr_perfdata *file, const lbr_perfdata_sample_head *head,
                                       const lbr_entry *entries, uint32_t count) {
    perf_bytes out;
    uint64_t used = 0, counters[LBR_MAX_DEPTH];
    if (!file || !head || !entries) return LBR_ENULL;
    if (count > LBR_MAX_DEPTH) return LBR_EINVAL;
    perf_begin(&out, PERF_RECORD_SAMPLE, head->kernel ? PERF_MISC_KERNEL : PERF_MISC_USER);
    perf_put64(&out, head->ip);
    perf_put32(&out, head->pid);
    perf_put32(&out, head->tid);
    perf_put64(&out, head->time);
    perf_put64(&out, head->cpu);
    perf_put64(&out, head->period);
    size_t at = out.size;
    perf_put64(&out, 0);
    if (file->indexed) perf_put64(&out, UINT64_MAX); /* not known */
    for (uint32_t i = 0; i < count && entries[i].from; i++) {
        if (entries[i].from == UINT64_MAX || (file->user_only && entries[i].from >> 63)) continue;
        perf_put64(&out, entries[i].from);
        perf_put64(&out, entries[i].to);
        perf_put64(&out, perf_flags(entries[i].info));
        counters[used++] = entries[i].info >> 32 & 0xFF; /* four of two bits */
    }
    if (file->logged) perf_put(&out, counters, 8 * used);
    memcpy(out.bytes + at, &used, 8);
    return perf_record(file, &out);
}

static void perf_put_string(perf_bytes *out, const char *text) {
    size_t size = strlen(text);
    perf_put32(out, (uint32_t)(size + PERF_STRING - size % PERF_STRING));
    perf_put_text(out, text, size, PERF_STRING);
}

/* CPU_PMU_CAPS: without the width of counters perf does not show what they logged. */
static void perf_put_caps(perf_bytes *out) {
    static const char *const words[4] = {"branch_counter_nr", "4", "branch_counter_width", "2"};
    perf_put32(out, 2);
    for (int i = 0; i < 4; i++) perf_put_string(out, words[i]);
}

/* The feature table and the bodies: ARCH, EVENT_DESC, BRANCH_STACK (empty), CPU_PMU_CAPS. */
static int perf_put_features(lbr_perfdata *file) {
    perf_bytes arch = {.size = 0}, event = {.size = 0}, table = {.size = 0}, caps = {.size = 0};
    uint64_t at = PERF_DATA_AT + file->written + (3 + (uint64_t)file->logged) * 16;
    perf_put_string(&arch, "x86_64");
    perf_put32(&event, 1);
    perf_put32(&event, PERF_ATTR_BYTES);
    perf_put(&event, file->attr, PERF_ATTR_BYTES);
    perf_put32(&event, 1); /* ids */
    perf_put_string(&event, file->event);
    perf_put64(&event, 1);
    perf_put64(&table, at);
    perf_put64(&table, arch.size);
    perf_put64(&table, at + arch.size);
    perf_put64(&table, event.size);
    perf_put64(&table, at + arch.size + event.size);
    perf_put64(&table, 0);
    if (file->logged) {
        perf_put_caps(&caps);
        perf_put64(&table, at + arch.size + event.size);
        perf_put64(&table, caps.size);
    }
    perf_write(file, table.bytes, table.size);
    perf_write(file, arch.bytes, arch.size);
    perf_write(file, event.bytes, event.size);
    return perf_write(file, caps.bytes, caps.size);
}

static int perf_put_header(lbr_perfdata *file) {
    perf_bytes out = {.size = 0};
    perf_put(&out, "PERFILE2", 8);
    perf_put64(&out, PERF_HEADER_BYTES);
    perf_put64(&out, PERF_ATTR_BYTES + 16);
    perf_put64(&out, PERF_HEADER_BYTES);
    perf_put64(&out, PERF_ATTR_BYTES + 16);
    perf_put64(&out, PERF_DATA_AT);
    perf_put64(&out, file->written);
    perf_put64(&out, 0);
    perf_put64(&out, 0);
    perf_put64(&out, 1ull << PERF_FEATURE_ARCH | 1ull << PERF_FEATURE_EVENT_DESC |
                         1ull << PERF_FEATURE_BRANCH_STACK |
                         (uint64_t)file->logged << PERF_FEATURE_CPU_PMU_CAPS);
    for (int i = 0; i < 3; i++) perf_put64(&out, 0);
    perf_put(&out, file->attr, PERF_ATTR_BYTES);
    perf_put64(&out, PERF_ID_AT);
    perf_put64(&out, 8);
    perf_put64(&out, 1); /* the id */
    if (fseek(file->stream, 0, SEEK_SET)) file->failed = 1;
    return perf_write(file, out.bytes, out.size);
}

LBRCORE_PUBLIC int lbr_perfdata_close(lbr_perfdata *file) {
    if (!file) return LBR_ENULL;
    perf_put_features(file);
    perf_put_header(file);
    int failed = file->failed;
    if (fclose(file->stream)) failed = 1;
    if (failed || rename(file->part, file->path)) {
        failed = 1;
        remove(file->part);
    }
    file->stream = NULL;
    lbr_perfdata_discard(file);
    return failed ? LBR_EIO : LBR_OK;
}
#endif /* LBR_NO_FILES */
