/* lbrcore: the data layout and the function table for C11 and C++17.
 *
 * This header holds no logic.  The facility is written in Cython.  A C program links liblbrcore,
 * which needs no Python, or, inside a Python process, takes the table from the capsule
 * "lbrcore._C_API"; a Cython program inlines the facility by `cimport lbrcore`.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LBRCORE_H
#define LBRCORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "lbrcore needs a little-endian machine"
#endif
#if UINTPTR_MAX < UINT64_MAX
#error "lbrcore needs a 64-bit machine"
#endif

#if defined(_WIN32)
#define LBRCORE_PUBLIC
#elif defined(__GNUC__)
#define LBRCORE_PUBLIC __attribute__((visibility("default")))
#else
#define LBRCORE_PUBLIC
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define LBRCORE_ABI_VERSION 1u

/* The largest depth that has MSRs and XSAVE room (SDM vol. 4; vol. 1, 13.5.12). */
#define LBR_MAX_DEPTH 32u
/* Twice that, so that the slot after the newest record is never one that shows. */
#define LBR_SLOTS 64u

/* One branch as a trace carries it: what the processor saw, filtered by nothing. */
typedef struct lbr_branch {
    uint64_t from;         /* linear address of the branch instruction's first byte */
    uint64_t to;           /* linear address of its target */
    uint32_t cycles;       /* core cycles since the previous branch of the trace */
    uint32_t instructions; /* instructions retired since it, this branch included */
    uint8_t cls;           /* enum lbr_class */
    uint8_t flags;         /* enum lbr_flag */
    uint8_t cpl_from;      /* 0..3, before the operation */
    uint8_t cpl_to;        /* 0..3, at its end */
    uint8_t events[4];     /* counts of the logged events since the previous branch */
} lbr_branch;

/* BR_TYPE in the low codes (SDM vol. 3, table 20-2); 6 and 7 are codes that the
 * table reserves and stand for what no facility records; 8..15 distinguish the members of
 * OTHER_BRANCH. */
enum lbr_class {
    LBR_COND = 0,
    LBR_NEAR_IND_JMP = 1,
    LBR_NEAR_REL_JMP = 2,
    LBR_NEAR_IND_CALL = 3,
    LBR_NEAR_REL_CALL = 4,
    LBR_NEAR_RET = 5,
    LBR_NOT_TAKEN = 6,  /* conditional branch that fell through */
    LBR_ZERO_CALL = 7,  /* near relative CALL to the next instruction */
    LBR_FAR_BRANCH = 8, /* far JMP, CALL, RET; SGX, RSM, INIT, SIPI */
    LBR_SYSCALL = 9,    /* SYSCALL, SYSENTER */
    LBR_SYSRET = 10,    /* SYSRET, SYSEXIT */
    LBR_IRET = 11,
    LBR_INTERRUPT = 12, /* hardware interrupt */
    LBR_EXCEPTION = 13, /* any but the debug exception */
    LBR_SOFT_INT = 14,  /* INT n, INT3, INTO */
    LBR_TSX_ABORT = 15
};

enum lbr_flag {
    LBR_FLAG_TSX_ABORT = 1, /* order and places make flags << 61 the bits of INFO */
    LBR_FLAG_IN_TSX = 2,
    LBR_FLAG_MISPRED = 4
};

/* What a branch that matches adds to a counter. */
enum lbr_unit {
    LBR_UNIT_BRANCHES = 0,     /* 1 */
    LBR_UNIT_INSTRUCTIONS = 1, /* its `instructions` */
    LBR_UNIT_CYCLES = 2        /* its `cycles` */
};

/* IA32_LBR_CTL (SDM vol. 4, 14CEH). */
enum lbr_ctl {
    LBR_CTL_LBREN = 0x1,
    LBR_CTL_OS = 0x2,
    LBR_CTL_USR = 0x4,
    LBR_CTL_CALL_STACK = 0x8,
    LBR_CTL_COND = 0x10000,
    LBR_CTL_NEAR_REL_JMP = 0x20000,
    LBR_CTL_NEAR_IND_JMP = 0x40000,
    LBR_CTL_NEAR_REL_CALL = 0x80000,
    LBR_CTL_NEAR_IND_CALL = 0x100000,
    LBR_CTL_NEAR_RET = 0x200000,
    LBR_CTL_OTHER_BRANCH = 0x400000,
    LBR_CTL_CPL = LBR_CTL_OS | LBR_CTL_USR,
    LBR_CTL_CLASSES = 0x7F0000,
    LBR_CTL_ALL = 0x7F000F
};

/* MSR_LBR_SELECT (SDM vol. 4, 1C8H): a set bit suppresses, but for EN_CALLSTACK. */
enum lbr_select {
    LBR_SELECT_CPL_EQ_0 = 0x1,
    LBR_SELECT_CPL_NEQ_0 = 0x2,
    LBR_SELECT_JCC = 0x4,
    LBR_SELECT_NEAR_REL_CALL = 0x8,
    LBR_SELECT_NEAR_IND_CALL = 0x10,
    LBR_SELECT_NEAR_RET = 0x20,
    LBR_SELECT_NEAR_IND_JMP = 0x40,
    LBR_SELECT_NEAR_REL_JMP = 0x80,
    LBR_SELECT_FAR_BRANCH = 0x100,
    LBR_SELECT_EN_CALLSTACK = 0x200,
    LBR_SELECT_ALL = 0x3FF
};

/* Bits of IA32_LBR_x_INFO (SDM vol. 4, 1200H; event counts: ISE v048, 8.4). */
#define LBR_INFO_CYC_CNT 0xFFFFu
#define LBR_INFO_PMCN_CNT_SHIFT 32
#define LBR_INFO_BR_TYPE_SHIFT 56
#define LBR_INFO_CYC_CNT_VALID (1ull << 60)
#define LBR_INFO_TSX_ABORT (1ull << 61)
#define LBR_INFO_IN_TSX (1ull << 62)
#define LBR_INFO_MISPRED (1ull << 63)
#define LBR_INFO_FLAGS (LBR_INFO_TSX_ABORT | LBR_INFO_IN_TSX | LBR_INFO_MISPRED)

/* One record; the triple of XSAVE component 15. */
typedef struct lbr_entry {
    uint64_t from;
    uint64_t to;
    uint64_t info; /* layout of IA32_LBR_x_INFO in every flavour */
} lbr_entry;

enum lbr_flavour {
    LBR_ARCHITECTURAL = 0, /* IA32_LBR_CTL: classes to include; entry 0 is the newest */
    LBR_LEGACY = 1         /* MSR_LBR_SELECT: classes to suppress; physical index and TOS */
};

enum lbr_quirk {
    /* Nehalem: NEAR_IND_JMP of MSR_LBR_SELECT suppresses indirect calls and returns, too,
       NEAR_REL_JMP relative calls (SDM vol. 3, table 17-11). */
    LBR_QUIRK_JMPS_INCLUDE_CALLS = 1
};

typedef struct lbr_config {
    uint8_t flavour;        /* enum lbr_flavour */
    uint8_t depth_bitmap;   /* architectural: CPUID.1CH:EAX[7:0]; bit n offers 8*(n+1) */
    uint8_t depth;          /* legacy: the fixed depth, a power of two; else 0, but in tests */
    uint8_t linear_width;   /* MAXLINADDR, 32..64 */
    uint8_t event_counters; /* CPUID.1CH:ECX[19:16] */
    uint8_t quirks;         /* enum lbr_quirk */
    uint8_t reserved[2];
    uint64_t ctl_mask;      /* bits that CTL (architectural) or LBR_SELECT (legacy) has */
    uint64_t info_mask;     /* bits of INFO that a record fills in */
} lbr_config;

/* The facility of one logical processor.  Used by one thread at a time.  C programs
 * treat it as opaque. */
typedef struct lbr_state {
    lbr_entry ring[LBR_SLOTS]; /* entry i lies in slot (head - i) % LBR_SLOTS */
    uint64_t accept;     /* truth table: recorded? bit = class | cpl_to << 4 */
    uint64_t pop;        /* truth table: removes the newest record? */
    uint64_t ctl;        /* IA32_LBR_CTL, or MSR_LBR_SELECT */
    uint64_t cycles;     /* since the last record, saturated between batches */
    lbr_entry ler;       /* last branch before the last exception or interrupt */
    uint32_t head;
    uint32_t depth;
    uint8_t events[4];   /* logged events since the last record, at most 3 each */
    uint8_t event_mask;  /* counters whose events are logged: IA32_PERFEVTSELx[35] */
    uint8_t mode;        /* which record loop serves; chosen when control changes */
    uint8_t active;      /* enabled and not frozen */
    uint8_t from_ones;   /* truth table: recorded with FROM all ones? bit = cpl_from */
    uint8_t cycles_valid;/* a record since recording (re)started gives `cycles` a meaning */
    uint8_t enable;      /* legacy: IA32_DEBUGCTL.LBR */
    uint8_t frozen;      /* IA32_PERF_GLOBAL_STATUS.LBR_FRZ */
    uint8_t xinuse;      /* XINUSE[15] was set by XRSTORS and not cleared since */
    uint8_t quick;       /* which quick part of `lbr_record` serves, 0 if none */
    uint8_t reserved;
    uint16_t ler_classes;/* classes that load LER while recording is on */
    lbr_config config;
} lbr_state;

/* Results of the functions below. */
enum lbr_result {
    LBR_OK = 0,
    LBR_EINVAL = -1,    /* an argument out of its range; state unchanged */
    LBR_GP = -2,        /* the access faults with #GP(0); state unchanged */
    LBR_ENOMEM = -3,
    LBR_ESHORT = -4,    /* the buffer ends before the area does; state unchanged */
    LBR_ENULL = -5,     /* a pointer is NULL; nothing happened */
    LBR_EABI = -6,      /* the program was compiled with another ABI version of this header */
    LBR_ESIZE = -7,     /* a structure of the program has another size than the library's */
    LBR_ECONFIG = -8,   /* no processor has such a configuration */
    LBR_EMODEL = -9,    /* no model has that name */
    LBR_ESTATE = -10,   /* saved state is damaged, or of another model; state unchanged */
    LBR_ENOTSUP = -11,  /* the model lacks that, or it cannot happen now; state unchanged */
    LBR_EIO = -12       /* a file could not be written */
};

/* Where the components of a compacted XSAVE area lie: CPUID.0DH.i:EAX and ECX[1]. */
typedef struct lbr_xsave_layout {
    uint32_t size[63];
    uint32_t reserved;
    uint64_t aligned; /* bit i: component i starts on a 64-byte boundary */
} lbr_xsave_layout;

/* The functions of liblbrcore.  None keeps a pointer that it was given, takes a lock or allocates,
 * but for those that create.  A NULL pointer is LBR_ENULL, and for functions that return something
 * else than an lbr_result NULL or 0.  lbr_destroy(NULL) does nothing. */

/* The library's table, with the same functions but for the look at NULL: pointers given to the
 * table's must not be NULL.  Compare abi_version and the sizes. */
struct lbrcore_api;
LBRCORE_PUBLIC const struct lbrcore_api *lbr_api(void);
LBRCORE_PUBLIC const char *lbr_strerror(int result);

/* Memory.  lbr_new(&state, &config) creates a state; its result is the reason if there is none (LBR_EABI,
 * LBR_ESIZE, LBR_ECONFIG, LBR_ENOMEM), and then the state is NULL.  lbr_create: the same without a
 * reason. */
#define lbr_new(state, config) \
    lbr_open((state), (config), sizeof(lbr_config), LBRCORE_ABI_VERSION)
LBRCORE_PUBLIC int lbr_open(lbr_state **state, const lbr_config *config, size_t config_size,
                            uint32_t abi_version);
LBRCORE_PUBLIC int lbr_config_valid(const lbr_config *config);
LBRCORE_PUBLIC lbr_state *lbr_create(const lbr_config *config);
LBRCORE_PUBLIC void lbr_destroy(lbr_state *state);
LBRCORE_PUBLIC int lbr_copy(lbr_state *target, const lbr_state *source);
LBRCORE_PUBLIC int lbr_reset(lbr_state *state);

/* Recording.  lbr_record_batch: oldest first; all or nothing.  lbrcore_inline.h has
 * lbr_record_inline for branches whose fields are known to be in range. */
LBRCORE_PUBLIC int lbr_record(lbr_state *state, const lbr_branch *branch);
LBRCORE_PUBLIC int lbr_record_batch(lbr_state *state, const lbr_branch *branches, size_t count);

/* By kind, the quickest: what is constant of a branch instruction in one word, made once (fields out of
 * range: LBR_EINVAL from the recording), the rest in machine registers.  Logs no events.
 * lbr_record_kinds: arrays of `count` each, oldest first; all or nothing.
 *
 * A loop may hold the facility: lbr_hold gives a number, each lbr_record_held takes the last one and
 * gives the next, lbr_release stores it, and tells of kinds that were refused.  In between, the state
 * is not to be used otherwise.  lbrcore_inline.h has all four as *_inline. */
LBRCORE_PUBLIC uint64_t lbr_kind(uint8_t cls, uint8_t flags, uint8_t cpl_from, uint8_t cpl_to);
LBRCORE_PUBLIC int lbr_record_kind(lbr_state *state, uint64_t from, uint64_t to, uint32_t cycles,
                                   uint64_t kind);
LBRCORE_PUBLIC int lbr_record_kinds(lbr_state *state, const uint64_t *from, const uint64_t *to,
                                    const uint32_t *cycles, const uint64_t *kind, size_t count);
LBRCORE_PUBLIC uint64_t lbr_hold(const lbr_state *state);
LBRCORE_PUBLIC uint64_t lbr_record_held(lbr_state *state, uint64_t held, uint64_t from, uint64_t to,
                                        uint32_t cycles, uint64_t kind);
LBRCORE_PUBLIC int lbr_release(lbr_state *state, uint64_t held);

/* For the inline part. */
LBRCORE_PUBLIC int lbr_record_rare(lbr_state *state, const lbr_branch *branch);
LBRCORE_PUBLIC int lbr_record_kind_rare(lbr_state *state, uint64_t from, uint64_t to, uint32_t cycles,
                                        uint64_t kind);
LBRCORE_PUBLIC uint64_t lbr_record_held_rare(lbr_state *state, uint64_t held, uint64_t from,
                                             uint64_t to, uint32_t cycles, uint64_t kind);

/* Control.  LBR_GP for reserved bits and depths that are not offered. */
LBRCORE_PUBLIC int lbr_write_ctl(lbr_state *state, uint64_t value);
LBRCORE_PUBLIC int lbr_write_depth(lbr_state *state, uint64_t value);
LBRCORE_PUBLIC int lbr_set_enable(lbr_state *state, int enable);
LBRCORE_PUBLIC int lbr_set_frozen(lbr_state *state, int frozen);
LBRCORE_PUBLIC int lbr_set_event_mask(lbr_state *state, int mask);
LBRCORE_PUBLIC int lbr_write_tos(lbr_state *state, uint32_t tos); /* legacy */

/* Records.  i counts from the newest; LBR_GP for i >= depth. */
LBRCORE_PUBLIC int lbr_read_entry(const lbr_state *state, uint32_t i, lbr_entry *entry);
LBRCORE_PUBLIC int lbr_write_entry(lbr_state *state, uint32_t i, const lbr_entry *entry);
LBRCORE_PUBLIC uint32_t lbr_read_records(const lbr_state *state, lbr_entry *entries);
LBRCORE_PUBLIC int lbr_read_ler(const lbr_state *state, lbr_entry *entry);
LBRCORE_PUBLIC int lbr_write_ler(lbr_state *state, const lbr_entry *entry);

/* XSAVE component 15 by itself, and the instructions on a compacted area. */
LBRCORE_PUBLIC int lbr_pack(const lbr_state *state, void *component, size_t size);
LBRCORE_PUBLIC int lbr_unpack(lbr_state *state, const void *component, size_t size);
LBRCORE_PUBLIC int lbr_xsaves(const lbr_state *state, void *area, size_t size,
                       const lbr_xsave_layout *layout, uint64_t rfbm, uint64_t xinuse);
LBRCORE_PUBLIC int lbr_xrstors(lbr_state *state, const void *area, size_t size,
                        const lbr_xsave_layout *layout, uint64_t rfbm, uint64_t supported);

/* The table for programs inside a Python process.  Members are only ever appended.  Every function
 * may be called without the GIL. */
typedef struct lbrcore_api {
    uint32_t abi_version;
    uint32_t struct_size; /* of this table, as built */
    uint32_t branch_size;
    uint32_t entry_size;
    uint32_t config_size;
    uint32_t state_size;

    /* Memory.  create: NULL when the configuration is not valid or memory ran out. */
    lbr_state *(*create)(const lbr_config *config);
    void (*destroy)(lbr_state *state);
    void (*copy)(lbr_state *target, const lbr_state *source);
    void (*reset)(lbr_state *state);

    /* Recording.  record_batch: oldest first; all or nothing. */
    int (*record)(lbr_state *state, const lbr_branch *branch);
    int (*record_batch)(lbr_state *state, const lbr_branch *branches, size_t count);

    /* Control.  LBR_GP for reserved bits and depths that are not offered. */
    int (*write_ctl)(lbr_state *state, uint64_t value);
    int (*write_depth)(lbr_state *state, uint64_t value);
    void (*set_enable)(lbr_state *state, int enable);
    void (*set_frozen)(lbr_state *state, int frozen);
    void (*set_event_mask)(lbr_state *state, int mask);
    int (*write_tos)(lbr_state *state, uint32_t tos); /* legacy */

    /* Records.  i counts from the newest; LBR_GP for i >= depth. */
    int (*read_entry)(const lbr_state *state, uint32_t i, lbr_entry *entry);
    int (*write_entry)(lbr_state *state, uint32_t i, const lbr_entry *entry);
    uint32_t (*read_records)(const lbr_state *state, lbr_entry *entries);
    void (*read_ler)(const lbr_state *state, lbr_entry *entry);
    void (*write_ler)(lbr_state *state, const lbr_entry *entry);

    /* XSAVE component 15 by itself: 808 bytes at most. */
    int (*pack)(const lbr_state *state, void *component, size_t size);
    int (*unpack)(lbr_state *state, const void *component, size_t size);
    /* The instructions on a compacted area. */
    int (*xsaves)(const lbr_state *state, void *area, size_t size,
                  const lbr_xsave_layout *layout, uint64_t rfbm, uint64_t xinuse);
    int (*xrstors)(lbr_state *state, const void *area, size_t size,
                   const lbr_xsave_layout *layout, uint64_t rfbm, uint64_t supported);
} lbrcore_api;

#define LBRCORE_CAPSULE "lbrcore._C_API"

/* With Python.h included: the table, or NULL with a Python exception set. */
#ifdef Py_PYTHON_H
static inline const lbrcore_api *lbrcore_import(void) {
    const lbrcore_api *api = (const lbrcore_api *)PyCapsule_Import(LBRCORE_CAPSULE, 0);
    if (api && (api->abi_version != LBRCORE_ABI_VERSION ||
                api->struct_size < sizeof(lbrcore_api) ||
                api->branch_size != sizeof(lbr_branch) ||
                api->entry_size != sizeof(lbr_entry) ||
                api->config_size != sizeof(lbr_config))) {
        PyErr_Format(PyExc_ImportError,
                     "lbrcore: installed ABI %u, built against ABI %u; rebuild the extension",
                     api->abi_version, LBRCORE_ABI_VERSION);
        return NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif
#endif /* LBRCORE_H */
