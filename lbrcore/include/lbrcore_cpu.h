/* lbrcore_cpu: a logical processor around the facility, as far as LBRs go.
 *
 * RDMSR, WRMSR and CPUID of a named model; counters, their overflow and the PMI; freezing; XSAVES;
 * #DB, SMI, RESET and power states; the whole state as bytes.  Every number, mask and reset value
 * comes from the rows that the Python package has.
 *
 *     lbr_cpu *cpu;
 *     lbr_cpu_new(&cpu, "sapphire-rapids");
 *     lbr_wrmsr(cpu, ecx, value, NULL);
 *     lbr_cpu_branch(cpu, &branch);
 *     lbr_rdmsr(cpu, ecx, &value, NULL);
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LBRCORE_CPU_H
#define LBRCORE_CPU_H

#include "lbrcore.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LBR_OPTIONAL /* the pointer may be NULL */

enum {
    LBR_PMI = 1, /* a positive result: a PMI was raised; inject it now */
    LBR_CPU_COUNTERS = 8,
    LBR_CPU_FIXED = 4,
    LBR_STATE_MAX = 4096, /* bytes that lbr_cpu_save needs at most */
    LBR_NO_BRANCH = 0xFF
};

/* ------------------------------------------------------------ models: generated tables */

/* How a register is read and written: the rows' `accessor`, and those that legacy LBRs replace. */
enum lbr_accessor {
    LBR_ACC_PLAIN, LBR_ACC_CANONICAL, LBR_ACC_CONSTANT, LBR_ACC_CAPABILITIES, LBR_ACC_RTIT,
    LBR_ACC_DEBUGCTL,
    LBR_ACC_LBR_CTL, LBR_ACC_LBR_DEPTH, LBR_ACC_LBR_SELECT, LBR_ACC_LBR_TOS, LBR_ACC_LBR_FROM,
    LBR_ACC_LBR_TO, LBR_ACC_LBR_INFO, LBR_ACC_LER_FROM, LBR_ACC_LER_TO, LBR_ACC_LER_INFO,
    LBR_ACC_LEGACY_LBR_SINGLE, LBR_ACC_LEGACY_LBR_FROM, LBR_ACC_LEGACY_LBR_TO,
    LBR_ACC_LEGACY_LBR_INFO, LBR_ACC_LEGACY_LER_FROM, LBR_ACC_LEGACY_LER_TO,
    LBR_ACC_AMD_CONFIG, LBR_ACC_AMD_FROM, LBR_ACC_AMD_TO,
    LBR_ACC_PMC, LBR_ACC_PMC_FULL, LBR_ACC_FIXED, LBR_ACC_EVTSEL, LBR_ACC_FIXED_CTRL,
    LBR_ACC_GLOBAL_CTRL, LBR_ACC_GLOBAL_STATUS, LBR_ACC_GLOBAL_RESET, LBR_ACC_GLOBAL_SET,
    LBR_ACC_GLOBAL_INUSE, LBR_ACC_PEBS_ENABLE
};

/* Registers that hold a value of their own. */
enum lbr_value {
    LBR_VALUE_IA32_PERF_CAPABILITIES, LBR_VALUE_MSR_PEBS_DATA_CFG, LBR_VALUE_IA32_DS_AREA,
    LBR_VALUE_IA32_XSS, LBR_VALUE_IA32_XFD, LBR_VALUE_IA32_XFD_ERR, LBR_VALUE_IA32_RTIT_CTL,
    LBR_VALUES
};

/* A register, or a run of numbered ones. */
typedef struct lbr_register {
    const char *name; /* {} stands for the number in the run */
    uint32_t first;
    uint8_t count;
    uint8_t stride;
    uint8_t accessor;     /* enum lbr_accessor */
    uint8_t value;        /* enum lbr_value of registers that hold one */
    uint8_t of_lbr;       /* vanishes while Intel PT excludes LBRs */
    uint8_t guest_writes; /* 0: WRMSR by a guest faults */
    uint64_t writable;
    uint64_t reserved;
    uint64_t reset;
} lbr_register;

typedef struct lbr_leaf {
    uint32_t leaf;
    uint32_t subleaf; /* all ones: ECX is ignored */
    uint32_t eax, ebx, ecx, edx;
} lbr_leaf;

typedef struct lbr_event {
    uint8_t select, umask;
    uint8_t mispredicted;
    uint8_t unit;     /* enum lbr_unit */
    uint32_t classes; /* bit n: class n counts */
} lbr_event;

enum lbr_model_flag {
    LBR_MODEL_ARCH = 1,
    LBR_MODEL_LEGACY = 2,
    LBR_MODEL_AMD = 4,
    LBR_MODEL_INTEL = 8,
    LBR_MODEL_TSX = 0x10,
    LBR_MODEL_SGX = 0x20,
    LBR_MODEL_NETBURST = 0x40,
    LBR_MODEL_PT_EXCLUDES_LBR = 0x80,
    LBR_MODEL_SIGNEXT_QUIRK = 0x100,
    LBR_MODEL_EFFECTIVE = 0x200,        /* records hold offsets in CS */
    LBR_MODEL_FREEZE_WHILE_SMM = 0x400,
    LBR_MODEL_DEEP_CSTATE_RESET = 0x800,
    LBR_MODEL_SINGLE = 0x1000,          /* one register holds both addresses */
    LBR_MODEL_TO_CYCLES = 0x2000,       /* TO[63:48] counts cycles */
    /* What the manual leaves open: pylbr.arch.choices */
    LBR_MODEL_NONCANONICAL_FAULTS = 0x4000,
    LBR_MODEL_LER_IGNORES_HIGH_BITS = 0x8000,
    LBR_MODEL_FREEZE_CLEARS_LBREN = 0x10000,
    LBR_MODEL_SELECT_SURVIVES = 0x20000,
    LBR_MODEL_SURVIVES_WARM_RESET = 0x40000,
    LBR_MODEL_DB_CLEARS_ENABLE = 0x80000,
    LBR_MODEL_OPT_OUT_STOPS_COUNTERS = 0x100000,
    LBR_MODEL_HOST_ABSENT_READS_ZERO = 0x200000
};

typedef struct lbr_model {
    const char *name;
    const char *absent_rule, *depth_rule, *format_rule; /* texts of refusals */
    lbr_config config;
    uint32_t flags; /* enum lbr_model_flag */
    uint8_t linear_width;
    uint8_t from_flags; /* legacy: how many bits at the top of FROM are flags */
    uint8_t amd_valid;  /* AMD: TO[63:62] of a record of a retired branch */
    uint8_t lbr_format; /* IA32_PERF_CAPABILITIES[5:0] */
    uint8_t pmu_version, counters, counter_width, fixed, fixed_width, pebs_format;
    uint8_t registers_count, leaves_count, events_count;
    uint8_t fixed_unit[LBR_CPU_FIXED];
    uint32_t fixed_classes[LBR_CPU_FIXED]; /* 0: not carried by a stream of branches */
    uint32_t max_leaf, max_extended;
    uint64_t xcr0, xss;
    const uint8_t *registers; /* places in the table of all registers, by number */
    const lbr_leaf *leaves;
    const lbr_event *events;
    lbr_xsave_layout layout;
} lbr_model;

/* The model of that name, or NULL; and the models one by one, NULL after the last. */
LBRCORE_PUBLIC const lbr_model *lbr_model_find(const char *name);
LBRCORE_PUBLIC const lbr_model *lbr_model_at(size_t i);
/* The register's name as the manual spells it, cut to `size` bytes; LBR_GP if the model has none. */
LBRCORE_PUBLIC int lbr_msr_name(const lbr_model *model, uint32_t index, char *text, size_t size);

/* ------------------------------------------------------------ a processor */

typedef struct lbr_counter {
    uint64_t table; /* bit: class | cpl_from << 4 */
    uint8_t need;   /* flags that must be set */
    uint8_t unit;
    uint8_t place; /* bit in the global registers: 32 up are fixed counters */
    uint8_t logs;  /* its counts go into IA32_LBR_x_INFO */
} lbr_counter;

/* What an emulator translated as one: straight code whose last instruction may be a branch. */
typedef struct lbr_block {
    uint64_t start, end;
    uint64_t last;         /* address of its last instruction */
    uint64_t target;       /* of a direct branch */
    uint32_t instructions;
    uint8_t cls;           /* enum lbr_class as if taken, or LBR_NO_BRANCH */
    uint8_t direct;
    uint8_t repeats;       /* the last instruction repeats: the next block may be itself again */
    uint8_t condition;     /* of a conditional branch, for lbr_cpu_flags */
} lbr_block;

struct lbr_cpu;
typedef void (*lbr_pmi_callback)(struct lbr_cpu *cpu, void *context);

/* Used by one thread at a time.  To be read by functions, not by member. */
typedef struct lbr_cpu {
    const lbr_model *model;
    lbr_state lbr;
    uint64_t debugctl, xcr0;
    uint64_t pmc[LBR_CPU_COUNTERS], evtsel[LBR_CPU_COUNTERS], fixed[LBR_CPU_FIXED];
    uint64_t fixed_ctrl, global_ctrl, status, pebs_enable;
    uint64_t value[LBR_VALUES];
    lbr_counter armed[LBR_CPU_COUNTERS + LBR_CPU_FIXED];
    uint64_t interrupts; /* counters whose overflow interrupts */
    uint64_t smm_debugctl, enclave_entry, cs_base;
    lbr_pmi_callback on_pmi;
    void *on_pmi_context;
    uint8_t armed_count, logging;
    uint8_t stops; /* why no counter counts: 1 SMM, 2 an opt-out enclave */
    uint8_t in_smm, smm_lbren, smm_held;
    uint8_t enclave; /* 0 outside, 1 opt-in, 2 opt-out */
    uint8_t in_tsx, long_mode;
    /* Blocks: entered last and not known to be left; instructions since the last branch. */
    const lbr_block *block;
    uint64_t since, event_from;
    uint8_t event_class, cpl;
    uint8_t held; /* the condition of its branch held, as lbr_cpu_flags reported */
} lbr_cpu;

/* Why an access faulted. */
typedef struct lbr_fault {
    const char *rule; /* what the manual demands */
    uint64_t bits;    /* the offending bits of the value; 0: the access itself is refused */
} lbr_fault;

/* LBR_EMODEL: no model has that name.  `cpu_size` 0: the caller, in another language, has no
 * definition of the structure. */
#define lbr_cpu_new(cpu, name) lbr_cpu_open((cpu), (name), sizeof(lbr_cpu), LBRCORE_ABI_VERSION)
LBRCORE_PUBLIC int lbr_cpu_open(lbr_cpu **cpu, const char *name, size_t cpu_size,
                                uint32_t abi_version);
LBRCORE_PUBLIC void lbr_cpu_destroy(lbr_cpu *cpu);
LBRCORE_PUBLIC int lbr_cpu_copy(lbr_cpu *target, const lbr_cpu *source);
/* Called at each PMI, after freezing.  The same as the result LBR_PMI. */
LBRCORE_PUBLIC int lbr_cpu_on_pmi(lbr_cpu *cpu, lbr_pmi_callback callback,
                                  void *LBR_OPTIONAL context);

/* RDMSR and WRMSR by a guest: LBR_OK, or LBR_GP with the reason.  lbr_host_*: initiated by the host
 * (KVM_GET_MSRS, KVM_SET_MSRS): read-only registers may be written where that makes sense, and
 * registers that this model lacks read 0 and take 0. */
LBRCORE_PUBLIC int lbr_rdmsr(const lbr_cpu *cpu, uint32_t index, uint64_t *value,
                             lbr_fault *LBR_OPTIONAL fault);
LBRCORE_PUBLIC int lbr_wrmsr(lbr_cpu *cpu, uint32_t index, uint64_t value,
                             lbr_fault *LBR_OPTIONAL fault);
LBRCORE_PUBLIC int lbr_host_rdmsr(const lbr_cpu *cpu, uint32_t index, uint64_t *value,
                                  lbr_fault *LBR_OPTIONAL fault);
LBRCORE_PUBLIC int lbr_host_wrmsr(lbr_cpu *cpu, uint32_t index, uint64_t value,
                                  lbr_fault *LBR_OPTIONAL fault);
/* EAX, EBX, ECX, EDX. */
LBRCORE_PUBLIC int lbr_cpuid(const lbr_cpu *cpu, uint32_t leaf, uint32_t subleaf,
                             uint32_t *registers);
LBRCORE_PUBLIC int lbr_xsetbv(lbr_cpu *cpu, uint64_t value, lbr_fault *LBR_OPTIONAL fault);

/* Branches retire: count, record, freeze.  Results: LBR_OK, LBR_PMI, LBR_EINVAL.  A batch ends
 * after the branch that raised a PMI; `taken` receives the number of branches taken. */
LBRCORE_PUBLIC int lbr_cpu_branch(lbr_cpu *cpu, const lbr_branch *branch);
LBRCORE_PUBLIC int lbr_cpu_record(lbr_cpu *cpu, const lbr_branch *branches, size_t count,
                                  size_t *taken);
/* Instructions and cycles without a branch; the branch that follows leaves them out. */
LBRCORE_PUBLIC int lbr_cpu_retire(lbr_cpu *cpu, uint32_t instructions, uint32_t cycles, int cpl);
/* All records, newest first, into 32 places; how many there are. */
LBRCORE_PUBLIC uint32_t lbr_cpu_records(const lbr_cpu *cpu, lbr_entry *entries);
LBRCORE_PUBLIC int lbr_cpu_raise_pmi(lbr_cpu *cpu);

/* Blocks, for translating emulators: describe a block once, when it is translated, then report which one
 * is entered.  Which branch the block before it ended in, and whether it was taken, follows; a
 * cycle is one instruction.  Of a conditional branch to the next instruction it does not follow: it
 * counts as not taken, unless lbr_cpu_flags receives the flags and RCX that the block left and they
 * show that it was taken.  Call it before the next lbr_cpu_enter; of a block whose `target` is not its
 * `end`, the flags are not needed.
 *
 * lbr_block_describe decodes 64-bit code of whole instructions, LBR_EINVAL if it is not;
 * lbr_block_ends takes the last instruction alone, of which only the branch class is needed, and
 * the number of instructions.  A block must stay where it is until another was entered.
 * lbr_cpu_enter: `cpl` is the privilege level at which it runs.  lbr_cpu_interrupt: an exception or
 * interrupt (a class) came at `from`, after `instructions` of the block; its handler is entered
 * next.  lbr_cpu_settle: the run has ended, and would go on at `next`. */
LBRCORE_PUBLIC int lbr_block_describe(lbr_block *block, uint64_t start, const void *code,
                                      size_t size);
LBRCORE_PUBLIC int lbr_block_ends(lbr_block *block, uint64_t start, uint32_t instructions,
                                  uint64_t last, const void *code, size_t size);
LBRCORE_PUBLIC int lbr_cpu_enter(lbr_cpu *cpu, const lbr_block *block, int cpl);
LBRCORE_PUBLIC int lbr_cpu_flags(lbr_cpu *cpu, uint64_t rflags, uint64_t rcx);
LBRCORE_PUBLIC int lbr_cpu_interrupt(lbr_cpu *cpu, int cls, uint64_t from, uint32_t instructions);
LBRCORE_PUBLIC int lbr_cpu_settle(lbr_cpu *cpu, uint64_t next);

/* What records contain of a branch besides its own data. */
LBRCORE_PUBLIC int lbr_cpu_set_mode(lbr_cpu *cpu, int long_mode, uint64_t cs_base);
LBRCORE_PUBLIC int lbr_cpu_set_tsx(lbr_cpu *cpu, int in_transaction);

/* Events.  LBR_ENOTSUP: it cannot happen now.  Their own jump is a branch for the caller to retire. */
LBRCORE_PUBLIC int lbr_cpu_debug_exception(lbr_cpu *cpu);
LBRCORE_PUBLIC int lbr_cpu_smi(lbr_cpu *cpu);
LBRCORE_PUBLIC int lbr_cpu_rsm(lbr_cpu *cpu);
LBRCORE_PUBLIC int lbr_cpu_init(lbr_cpu *cpu);
LBRCORE_PUBLIC int lbr_cpu_reset(lbr_cpu *cpu, int warm, int in_c6);
LBRCORE_PUBLIC int lbr_cpu_mwait(lbr_cpu *cpu, int deep, int lose);
LBRCORE_PUBLIC int lbr_cpu_enclave_enter(lbr_cpu *cpu, uint64_t from, int opt_in);
LBRCORE_PUBLIC int lbr_cpu_enclave_leave(lbr_cpu *cpu, uint64_t *from);

/* XSAVES and XRSTORS of the header and component 15; `address` is the area's linear address.
 * LBR_ENOTSUP: the model has none (#UD), or it manages no LBRs. */
LBRCORE_PUBLIC int lbr_cpu_xsaves(const lbr_cpu *cpu, void *area, size_t size, uint64_t address,
                                  uint64_t rfbm, uint64_t xinuse);
LBRCORE_PUBLIC int lbr_cpu_xrstors(lbr_cpu *cpu, const void *area, size_t size, uint64_t address,
                                   uint64_t rfbm);

/* The whole state as bytes: the format of docs/state.md, which the Python package reads and writes.
 * lbr_cpu_load needs not trust them: LBR_ESTATE, and the processor is as it was. */
LBRCORE_PUBLIC int lbr_cpu_save(const lbr_cpu *cpu, void *data, size_t size, size_t *used);
LBRCORE_PUBLIC int lbr_cpu_load(lbr_cpu *cpu, const void *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif /* LBRCORE_CPU_H */
