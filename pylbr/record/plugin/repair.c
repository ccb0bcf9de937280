/* QEMU 7.2, built for plugins, cannot create threads in a child that a threaded process has
 * forked, with a plugin or without: its table of virtual CPUs keeps those that did not come
 * along, and it asserts that a new CPU's number is new in it.  The table is GLib's, so the
 * answer to that one insertion is put right on its way.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "recorder.h"

typedef int (*insertion)(void *table, void *key, void *value);

static insertion insert, replace;
static int forked, repaired;

/* Only the table of CPUs has its keys for values. */
static int insert_cpu(void *table, void *key, void *value) {
    if (!forked || key != value)
        return insert(table, key, value);
    replace(table, key, value);
    return 1;
}

static int redirect(void **slot) {
    uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE), page = (uintptr_t)slot & ~(size - 1);
    /* Read-only after relocation. */
    if (mprotect((void *)page, size, PROT_READ | PROT_WRITE))
        return 0;
    *slot = (void *)insert_cpu;
    mprotect((void *)page, size, PROT_READ);
    return 1;
}

/* The first object is QEMU itself: finds its entry of g_hash_table_insert. */
static int visit(struct dl_phdr_info *object, size_t size, void *data) {
    const ElfW(Dyn) *entry = NULL;
    const ElfW(Sym) *symbols = NULL;
    const ElfW(Rela) *tables[2] = {NULL, NULL};
    const char *names = NULL;
    size_t bytes[2] = {0, 0};
    for (int i = 0; i < object->dlpi_phnum; i++)
        if (object->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const void *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr);
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        const void *at = (const void *)entry->d_un.d_ptr;
        switch (entry->d_tag) {
        case DT_SYMTAB: symbols = at; break;
        case DT_STRTAB: names = at; break;
        case DT_JMPREL: tables[0] = at; break;
        case DT_PLTRELSZ: bytes[0] = entry->d_un.d_val; break;
        case DT_RELA: tables[1] = at; break;
        case DT_RELASZ: bytes[1] = entry->d_un.d_val; break;
        }
    }
    for (int i = 0; i < 2 && symbols && names; i++)
        for (size_t k = 0; tables[i] && k < bytes[i] / sizeof *tables[i]; k++) {
            const ElfW(Sym) *symbol = &symbols[ELF64_R_SYM(tables[i][k].r_info)];
            if (!strcmp(names + symbol->st_name, "g_hash_table_insert"))
                repaired |= redirect((void **)(object->dlpi_addr + tables[i][k].r_offset));
        }
    return 1;
}

void repair_install(void) {
    insert = (insertion)dlsym(RTLD_DEFAULT, "g_hash_table_insert");
    replace = (insertion)dlsym(RTLD_DEFAULT, "g_hash_table_replace");
#ifndef RECORDER_LEAVES_QEMU_ALONE
    if (insert && replace)
        dl_iterate_phdr(visit, NULL);
#endif
}

void repair_forked(void) {
    forked = 1;
}

int repair_done(void) {
    return repaired;
}
