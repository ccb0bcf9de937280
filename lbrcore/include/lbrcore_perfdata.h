/* lbrcore_perfdata: samples of an emulator as a perf.data file, which `perf report` and everything
 * that converts perf's branch stacks read.
 *
 *     lbr_perfdata *file;
 *     lbr_perfdata_open(&file, "perf.data", &event);
 *     lbr_perfdata_comm(file, pid, tid, 0, "program");
 *     lbr_perfdata_mmap(file, pid, tid, 0, start, length, offset, "/usr/bin/program");
 *     lbr_perfdata_sample(file, &sample, entries, lbr_cpu_records(cpu, entries));
 *     lbr_perfdata_close(file);
 *
 * The file appears under its name when it is closed.  Not with LBR_NO_FILES, for machines without
 * stdio.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LBRCORE_PERFDATA_H
#define LBRCORE_PERFDATA_H

#include "lbrcore.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lbr_perfdata lbr_perfdata;

/* What is sampled, as perf_event_attr has it. */
typedef struct lbr_perfdata_event {
    const char *name;            /* "branches" */
    uint32_t type;               /* PERF_TYPE_*; 4 is RAW */
    uint32_t reserved;
    uint64_t config;             /* RAW: event select and unit mask */
    uint64_t period;
    uint64_t branch_sample_type; /* PERF_SAMPLE_BRANCH_*; 9 is ANY of USER; with COUNTERS (1 << 19)
                                    the events that each record logged are written, too */
} lbr_perfdata_event;

typedef struct lbr_perfdata_sample_head {
    uint64_t ip, time, period; /* time: nanoseconds, never less than before */
    uint32_t pid, tid, cpu;
    uint32_t kernel;           /* 1: ip is the kernel's */
} lbr_perfdata_sample_head;

/* LBR_EIO: the file cannot be written; at close: it does not exist then. */
LBRCORE_PUBLIC int lbr_perfdata_open(lbr_perfdata **file, const char *path,
                                     const lbr_perfdata_event *event);
LBRCORE_PUBLIC int lbr_perfdata_comm(lbr_perfdata *file, uint32_t pid, uint32_t tid, uint64_t time,
                                     const char *name);
/* An executable mapping of a file; LBR_EINVAL: the path is too long. */
LBRCORE_PUBLIC int lbr_perfdata_mmap(lbr_perfdata *file, uint32_t pid, uint32_t tid, uint64_t time,
                                     uint64_t start, uint64_t length, uint64_t offset,
                                     const char *path);
/* Records newest first, 32 at most; those that never were, and those of filtered rings, are left
 * out as Linux leaves them out. */
LBRCORE_PUBLIC int lbr_perfdata_sample(lbr_perfdata *file, const lbr_perfdata_sample_head *head,
                                       const lbr_entry *entries, uint32_t count);
LBRCORE_PUBLIC int lbr_perfdata_close(lbr_perfdata *file);
LBRCORE_PUBLIC void lbr_perfdata_discard(lbr_perfdata *file);

#ifdef __cplusplus
}
#endif
#endif /* LBRCORE_PERFDATA_H */
