/* Samples its own rounds with one branch filter after another: each word is a number of branch_sample_type.
 * Writes to standard output, per sample: u64 filter, u64 entries, and per entry u64 from, u64 to, u64 flags. */
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "kinds.h"

enum { PAGE = 4096, PAGES = 64 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void sampled(uint64_t filter) {
    struct perf_event_attr attr = {
        .type = PERF_TYPE_HARDWARE, .size = sizeof attr, .config = PERF_COUNT_HW_BRANCH_INSTRUCTIONS,
        .sample_period = 499, .sample_type = PERF_SAMPLE_BRANCH_STACK, .disabled = 1,
        .branch_sample_type = filter,
    };
    int event = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    if (event < 0)
        fail("perf_event_open");
    struct perf_event_mmap_page *head =
        mmap(NULL, (1 + PAGES) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, event, 0);
    if (head == MAP_FAILED)
        fail("mmap");
    ioctl(event, PERF_EVENT_IOC_ENABLE, 0);
    rounds(1500);
    ioctl(event, PERF_EVENT_IOC_DISABLE, 0);
    const char *data = (const char *)head + PAGE;
    for (uint64_t at = 0; at < head->data_head;) {  /* the ring is larger than all of them */
        const struct perf_event_header *record = (const void *)(data + at);
        if (record->type != PERF_RECORD_SAMPLE) {
            fprintf(stderr, "a record of type %u\n", record->type);
            exit(1);
        }
        fwrite(&filter, 8, 1, stdout);
        fwrite(record + 1, 1, record->size - sizeof *record, stdout);
        at += record->size;
    }
    munmap(head, (1 + PAGES) * PAGE);
    close(event);
}

int main(int count, char **words) {
    for (int n = 1; n < count; n++)
        sampled(strtoull(words[n], NULL, 0));
    return 0;
}
