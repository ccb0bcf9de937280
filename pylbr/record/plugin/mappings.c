/* Where the guest's code lies: the program and its loader, which QEMU maps, and what the guest
 * maps itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "recorder.h"

#define PAGE 4096ull
#define FLOOR(x) ((x) & ~(PAGE - 1))
#define CEILING(x) FLOOR((x) + PAGE - 1)
#define SEGMENTS 64

static void report_mapping(recorder_cpu *cpu, uint64_t start, uint64_t size, uint64_t offset,
                           const char *path) {
    uint64_t head[3] = {start, size, offset};
    recorder_message(cpu, WIRE_MMAP, head, sizeof head, path, (uint32_t)strlen(path));
}

/* ---- the host's list of mappings ---- */

/* One line of /proc/self/maps, at the guest's addresses. */
struct mapping {
    uint64_t start, end, offset;
    const char *path;
};

/* A guest's range, and where the path of what lies at its start goes; NULL to report it all. */
struct range {
    uint64_t low, high;
    char *path;
};

static void visit(recorder_cpu *cpu, const struct mapping *m, const struct range *range) {
    uint64_t low = m->start > range->low ? m->start : range->low;
    uint64_t high = m->end < range->high ? m->end : range->high;
    if (low >= high)
        return;
    if (range->path)
        strcpy(range->path, m->path);
    else
        report_mapping(cpu, low, high - low, m->offset + (low - m->start), m->path);
}

static void visit_maps(recorder_cpu *cpu, const struct range *range) {
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[PATH_MAX + 128];
    while (maps && fgets(line, sizeof line, maps)) {
        struct mapping m;
        unsigned long inode;
        int at = 0;
        if (sscanf(line, "%lx-%lx %*s %lx %*s %lu %n", &m.start, &m.end, &m.offset, &inode,
                   &at) < 4)
            continue;
        line[strcspn(line, "\n")] = 0;
        m.start -= guest_base, m.end -= guest_base;
        m.path = inode && strlen(line + at) < PATH_MAX ? line + at : "//anon";
        visit(cpu, &m, range);
    }
    if (maps)
        fclose(maps);
}

/* Path of the file that is mapped there, or an empty one. */
static void path_at(recorder_cpu *cpu, uint64_t address, char path[PATH_MAX]) {
    *path = 0;
    visit_maps(cpu, &(struct range){address, address + 1, path});
}

/* ---- segments of a file ---- */

struct image {
    Elf64_Ehdr elf;
    int count; /* of PT_LOAD */
    Elf64_Phdr loads[SEGMENTS];
};

static int read_image(int fd, struct image *image) {
    Elf64_Phdr header;
    image->count = 0;
    if (fd < 0 || pread(fd, &image->elf, sizeof image->elf, 0) != sizeof image->elf ||
        memcmp(image->elf.e_ident, ELFMAG, SELFMAG) || image->elf.e_ident[EI_CLASS] != ELFCLASS64)
        return 0;
    for (int i = 0; i < image->elf.e_phnum && image->count < SEGMENTS; i++) {
        off_t at = (off_t)(image->elf.e_phoff + (uint64_t)i * image->elf.e_phentsize);
        if (pread(fd, &header, sizeof header, at) != sizeof header)
            break;
        if (header.p_type == PT_LOAD)
            image->loads[image->count++] = header;
    }
    return image->count;
}

static int open_image(const char *path, struct image *image) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), found = read_image(fd, image);
    if (fd >= 0)
        close(fd);
    return found;
}

/* Pages of a segment's bytes in the file, counted as elf_map() of Linux's fs/binfmt_elf.c does. */
static uint64_t length_of(const Elf64_Phdr *load) {
    return CEILING(load->p_filesz + load->p_vaddr % PAGE);
}

static void report_segments(recorder_cpu *cpu, const struct image *image, uint64_t bias,
                            const char *path) {
    for (int i = 0; i < image->count; i++) {
        const Elf64_Phdr *load = &image->loads[i];
        if (load->p_flags & PF_X && load->p_filesz)
            report_mapping(cpu, FLOOR(bias + load->p_vaddr), length_of(load),
                           load->p_offset - load->p_vaddr % PAGE, path);
    }
}

/* Whether the file has a segment with code at that address. */
static int has_code_at(const struct image *image, uint64_t address) {
    for (int i = 0; i < image->count; i++)
        if (image->loads[i].p_flags & PF_X &&
            address - image->loads[i].p_vaddr < image->loads[i].p_memsz)
            return 1;
    return 0;
}

/* QEMU maps the program and its loader, and starts at the entry of the loader if there is one.
 * The code of the program begins at the lowest of its segments with code. */
void guest_report_program(recorder_cpu *cpu, uint64_t first) {
    char path[PATH_MAX];
    struct image image;
    uint64_t lowest = UINT64_MAX, code = qemu_plugin_start_code();
    if (open_image(qemu_plugin_path_to_binary(), &image)) {
        for (int i = 0; i < image.count; i++)
            if (image.loads[i].p_flags & PF_X && image.loads[i].p_vaddr < lowest)
                lowest = image.loads[i].p_vaddr;
        path_at(cpu, code, path);
        report_segments(cpu, &image, code - lowest, path);
        if (has_code_at(&image, first - (code - lowest)))
            return;
    }
    path_at(cpu, first, path);
    if (open_image(path, &image))
        report_segments(cpu, &image, first - image.elf.e_entry, path);
}

/* ---- what the guest maps ---- */

/* A loader reserves space for a whole library by mapping its first segment that long, and maps
 * the others over it: only that segment's own pages stay. */
static uint64_t pages_that_stay(int fd, uint64_t size, uint64_t offset) {
    struct image image;
    if (!read_image(fd, &image))
        return size;
    const Elf64_Phdr *first = &image.loads[0], *last = &image.loads[image.count - 1];
    uint64_t whole = CEILING(last->p_vaddr + last->p_memsz) - FLOOR(first->p_vaddr);
    if (offset != first->p_offset - first->p_vaddr % PAGE || CEILING(size) != whole ||
        image.count < 2)
        return size;
    return length_of(first);
}

void guest_mapped(recorder_cpu *cpu, uint64_t address, uint64_t size, int fd, uint64_t offset) {
    char link[64], path[PATH_MAX] = "//anon";
    if (fd >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
        size = pages_that_stay(fd, size, offset);
    }
    report_mapping(cpu, address, CEILING(size), offset, path);
}

void guest_became_executable(recorder_cpu *cpu, uint64_t address, uint64_t size) {
    visit_maps(cpu, &(struct range){address, address + CEILING(size), NULL});
}
