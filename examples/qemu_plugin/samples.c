/* A sample at every PMI, for `perf report`: what the guest's perf would have written. */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lbrcore_perfdata.h"
#include "qemu_api.h"
#include "samples.h"

enum { DEBUGCTL = 0x1D9, PMC0 = 0x4C1, EVTSEL0 = 0x186, GLOBAL_CTRL = 0x38F, STATUS_RESET = 0x390 };

static lbr_perfdata *file;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *out;
static uint64_t every, samples;
static bool mapped; /* the program is in the file, or there is none */

int samples_open(const char *path, uint64_t period, int system) {
    /* BRANCH_STACK of user mode, or of the kernel too; BR_INST_RETIRED.NEAR_TAKEN */
    lbr_perfdata_event event = {"branches", 4, 0, 0x20C4, 0, system ? 11 : 9};
    event.period = every = period;
    out = path, mapped = system;
    return lbr_perfdata_open(&file, path, &event);
}

/* The program's executable segments, as they lie after the first of them. */
void samples_map_program(void) {
    const char *path = qemu_plugin_path_to_binary();
    Elf64_Ehdr head;
    Elf64_Phdr part;
    bool first = true;
    uint64_t moved = 0;
    if (mapped) return;
    mapped = true; /* QEMU translates under a lock of its own */
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return;
    const char *name = strrchr(path, '/');
    lbr_perfdata_comm(file, 1, 1, 0, name ? name + 1 : path);
    if (pread(fd, &head, sizeof head, 0) == sizeof head && !memcmp(head.e_ident, ELFMAG, 4))
        for (int i = 0; i < head.e_phnum; i++) {
            off_t at = (off_t)(head.e_phoff + (uint64_t)i * sizeof part);
            if (pread(fd, &part, sizeof part, at) != sizeof part) break;
            if (part.p_type != PT_LOAD || !(part.p_flags & PF_X)) continue;
            if (first && head.e_type == ET_DYN) moved = qemu_plugin_start_code() - part.p_vaddr;
            first = false;
            uint64_t skew = part.p_vaddr % 4096;
            lbr_perfdata_mmap(file, 1, 1, 0, moved + part.p_vaddr - skew, part.p_filesz + skew,
                              part.p_offset - skew, path);
        }
    close(fd);
}

void samples_count(lbr_cpu *cpu) {
    lbr_wrmsr(cpu, DEBUGCTL, 1 << 11, NULL); /* FREEZE_LBRS_ON_PMI */
    lbr_wrmsr(cpu, GLOBAL_CTRL, 1, NULL);
    lbr_wrmsr(cpu, EVTSEL0, 0x5320C4, NULL); /* BR_INST_RETIRED.NEAR_TAKEN, interrupt */
    lbr_wrmsr(cpu, PMC0, (1ull << 48) - every, NULL);
}

void samples_take(unsigned vcpu, lbr_cpu *cpu, uint64_t ip) {
    lbr_entry entries[LBR_MAX_DEPTH];
    uint32_t count = lbr_cpu_records(cpu, entries);
    pthread_mutex_lock(&lock);
    lbr_perfdata_sample_head head = {.ip = ip, .time = ++samples, .period = every, .pid = 1,
                                     .tid = vcpu + 1, .cpu = vcpu, .kernel = ip >> 63};
    lbr_perfdata_sample(file, &head, entries, count); /* what fails, lbr_perfdata_close tells */
    pthread_mutex_unlock(&lock);
    lbr_wrmsr(cpu, STATUS_RESET, 1ull << 58 | 1, NULL); /* LBR_FRZ and the overflow */
    lbr_wrmsr(cpu, PMC0, (1ull << 48) - every, NULL);
}

void samples_close(void) {
    int result = lbr_perfdata_close(file);
    if (result != LBR_OK) fprintf(stderr, "lbr_plugin: %s: %s\n", out, lbr_strerror(result));
    else fprintf(stderr, "lbr_plugin: %" PRIu64 " samples in %s\n", samples, out);
}
